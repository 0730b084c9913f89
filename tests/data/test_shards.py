from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stbir.data.schema import SHARD_SCHEMA, Row
from stbir.data.shard_writer import QUARANTINE, ROW_GROUP, publish, write_quarantine, write_rows
from stbir.data.shards import open_shards
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.manifest import content_digest, write_manifest


def row(number: int, size: int = 10) -> Row:
    return {
        "photo_id": f"x:{number}",
        "category": "x",
        "class": None if number % 2 else "even",
        "split": "val" if number % 5 == 0 else "train",
        "photo": bytes([number % 256]) * size,
        "sketches": [b"s"] * (number % 3),
        "text": f"text {number}",
        "text_source": None,
        "sketch_count": number % 3,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_the_index_lists_every_photo_and_groups_hold_its_row(folder: Folder) -> None:
    rows = [row(n) for n in range(150)]
    parts = [write_rows(folder, 1, rows[100:]), write_rows(folder, 0, rows[:100])]
    publish(folder, parts, {"in": 150}, {})
    shards = open_shards(folder.uri)
    assert [name[:7] for name in shards.files] == ["data/00", "data/00"]
    index = shards.index.to_pylist()
    assert [entry["photo_id"] for entry in index] == [r["photo_id"] for r in rows]
    assert [entry["sketch_count"] for entry in index] == [r["sketch_count"] for r in rows]
    groups = sorted({(entry["file"], entry["group"]) for entry in index})
    found = [r for file, group in groups for r in shards.read_group(file, group).to_pylist()]
    assert found == rows
    assert all(shards.read_group(*group).num_rows <= ROW_GROUP for group in groups)
    assert shards.read_group(*groups[0], columns=["text"]).column_names == ["text"]
    assert shards.manifest.digest == content_digest(folder, shards.files)


def test_one_split_of_it(folder: Folder) -> None:
    publish(folder, [write_rows(folder, 0, [row(n) for n in range(10)])], {}, {})
    shards = open_shards(folder.uri)
    assert shards.split("val")["photo_id"].to_pylist() == ["x:0", "x:5"]
    assert shards.split(None).num_rows == 10
    with pytest.raises(InputError, match="split 'test' is empty; there is train, val"):
        shards.split("test")


def test_files_are_bounded_in_bytes_and_keep_the_order(folder: Folder) -> None:
    rows = [row(n, size=1000) for n in range(25)]
    written = write_rows(folder, 3, rows, max_bytes=10_000)
    tables = [pq.read_table(folder.at(name), schema=SHARD_SCHEMA) for name in written.hashes]
    assert [r for table in tables for r in table.to_pylist()] == rows
    for table in tables:
        assert sum(len(r["photo"]) + sum(map(len, r["sketches"])) for r in table.to_pylist()) <= 10_000
    assert written.photos == {"train": 20, "val": 5}
    assert written.sketches["val"] == sum(r["sketch_count"] for r in rows if r["split"] == "val")


def test_a_row_larger_than_a_file_still_gets_one(folder: Folder) -> None:
    assert len(write_rows(folder, 0, [row(1, size=99), row(2, size=99)], max_bytes=50).hashes) == 2


def test_the_same_rows_give_the_same_digest_and_a_new_version_leaves_no_old_file(folder: Folder) -> None:
    folder.write("data/mine.parquet", b"not ours to remove")
    first = publish(folder, [write_rows(folder, 0, [row(1)])], {}, {})
    again = publish(folder, [write_rows(folder, 0, [row(1)])], {}, {})
    assert first.digest == again.digest
    assert first.details["files"] == again.details["files"]
    other = publish(folder, [write_rows(folder, 0, [row(2)])], {}, {})
    assert other.digest != first.digest
    assert folder.names("data/*") == sorted([*other.details["files"], "data/mine.parquet"])


def test_files_without_their_manifest_do_not_count(folder: Folder) -> None:
    publish(folder, [write_rows(folder, 0, [row(1)])], {}, {})
    write_rows(folder, 0, [row(2)])  # and here the job dies
    assert open_shards(folder.uri).index["photo_id"].to_pylist() == ["x:1"]


def test_a_damaged_file_or_manifest_is_named(folder: Folder) -> None:
    publish(folder, [write_rows(folder, 0, [row(0)])], {"ok": 1}, {})
    shards = open_shards(folder.uri)
    folder.write(shards.files[0], b"PAR1 but torn")
    with pytest.raises(InputError, match=f"{shards.files[0]}: damaged .* run prepare_shards.py again"):
        _ = shards.index
    with pytest.raises(InputError, match="damaged"):
        shards.read_group(shards.files[0], 0)
    write_manifest(folder, replace(shards.manifest, details={}))
    with pytest.raises(InputError, match=r"details\.files is missing .*prepare_shards"):
        _ = open_shards(folder.uri).files


def test_the_quarantine_is_written_also_where_it_is_empty(folder: Folder) -> None:
    write_quarantine(folder, [Fault("x:1", "no text", "p.png")])
    assert pq.read_table(folder.at(QUARANTINE)).to_pylist() == [
        {"photo_id": "x:1", "reason": "no text", "file": "p.png", "detail": None, "content": None}
    ]
    write_quarantine(folder, [])
    assert pq.read_table(folder.at(QUARANTINE)).num_rows == 0
