from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stbir.data.photo_index import build_photo_index, class_names, hash_text
from stbir.data.schema import SHARD_SCHEMA, Row
from stbir.data.shard_writer import QUARANTINE, ROW_GROUP_SIZE, publish, write_quarantine, write_rows
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


def test_the_index_lists_all_photos_and_row_groups_hold_their_rows(folder: Folder) -> None:
    rows = [row(n) for n in range(150)]
    parts = [write_rows(folder, 1, rows[100:]), write_rows(folder, 0, rows[:100])]
    publish(folder, parts, {"in": 150}, {})
    shards = open_shards(folder.uri)
    assert [name[:7] for name in shards.files] == ["data/00", "data/00"]
    index = shards.index.to_pylist()
    assert [entry["photo_id"] for entry in index] == [r["photo_id"] for r in rows]
    assert [entry["sketch_count"] for entry in index] == [r["sketch_count"] for r in rows]
    groups = sorted({(entry["file"], entry["group"]) for entry in index})
    assert [r for file, group in groups for r in shards.read_group(file, group).to_pylist()] == rows
    assert all(shards.read_group(*group).num_rows <= ROW_GROUP_SIZE for group in groups)
    assert shards.read_group(*groups[0], columns=["text"]).column_names == ["text"]
    assert shards.manifest.digest == content_digest(folder, shards.files)


def test_the_index_of_one_split(folder: Folder) -> None:
    publish(folder, [write_rows(folder, 0, [row(n) for n in range(10)])], {}, {})
    shards = open_shards(folder.uri)
    assert shards.select_split("val")["photo_id"].to_pylist() == ["x:0", "x:5"]
    assert shards.select_split(None).num_rows == 10
    with pytest.raises(InputError, match="split 'test' is empty; available: train, val"):
        shards.select_split("test")


def test_the_photo_index_locates_photos_and_labels_those_of_the_run(folder: Folder) -> None:
    parts = [
        write_rows(folder, n, [row(i) for i in numbers]) for n, numbers in enumerate(([0, 1, 4], [2, 5]))
    ]
    publish(folder, parts, {}, {})
    shards = open_shards(folder.uri)
    index = build_photo_index(shards, ["train"], ["even"], aux=[shards])
    assert index.ids == ["x:1", "x:4", "x:2", "x:0", "x:1", "x:4", "x:2", "x:5"]
    assert index.aux.tolist() == [False] * 3 + [True] * 5
    assert index.label.tolist() == [-1, 0, 0] + [-1] * 5
    assert index.sketch_count.tolist() == [1, 1, 2, 0, 1, 1, 2, 2]
    assert index.text_key[0] == hash_text("text 1")
    for photo_id, number, position in zip(index.ids, index.row_group, index.row, strict=True):
        _, file, group = index.row_groups[number]
        assert shards.read_group(file, group)["photo_id"][int(position)].as_py() == photo_id
    with pytest.raises(InputError, match="class: photo x:1 has none"):
        class_names(shards, ["train"])


def test_files_have_a_maximum_size_and_keep_the_order(folder: Folder) -> None:
    rows = [row(n, size=1000) for n in range(25)]
    part = write_rows(folder, 3, rows, max_bytes=10_000)
    tables = [pq.read_table(folder.path_of(name), schema=SHARD_SCHEMA) for name in part.hashes]
    assert [r for table in tables for r in table.to_pylist()] == rows
    for table in tables:
        assert sum(len(r["photo"]) + sum(map(len, r["sketches"])) for r in table.to_pylist()) <= 10_000
    assert part.photos == {"train": 20, "val": 5}
    assert part.sketches["val"] == sum(r["sketch_count"] for r in rows if r["split"] == "val")


def test_a_row_larger_than_the_maximum_gets_its_own_file(folder: Folder) -> None:
    assert len(write_rows(folder, 0, [row(1, size=99), row(2, size=99)], max_bytes=50).hashes) == 2


def test_equal_rows_give_an_equal_digest_and_publishing_removes_old_files(folder: Folder) -> None:
    folder.write("data/mine.parquet", b"of the user")
    manifest = publish(folder, [write_rows(folder, 0, [row(1)])], {}, {})
    same = publish(folder, [write_rows(folder, 0, [row(1)])], {}, {})
    assert manifest.digest == same.digest
    assert manifest.details["files"] == same.details["files"]
    other = publish(folder, [write_rows(folder, 0, [row(2)])], {}, {})
    assert other.digest != manifest.digest
    assert folder.list_files("data/*") == sorted([*other.details["files"], "data/mine.parquet"])


def test_files_that_the_manifest_does_not_list_are_ignored(folder: Folder) -> None:
    publish(folder, [write_rows(folder, 0, [row(1)])], {}, {})
    write_rows(folder, 0, [row(2)])  # and the job dies before `publish`
    assert open_shards(folder.uri).index["photo_id"].to_pylist() == ["x:1"]


def test_errors_name_the_damaged_file_or_manifest(folder: Folder) -> None:
    publish(folder, [write_rows(folder, 0, [row(0)])], {"ok": 1}, {})
    shards = open_shards(folder.uri)
    folder.write(shards.files[0], b"PAR1 but torn")
    with pytest.raises(InputError, match=f"{shards.files[0]}: damaged .* run prepare_shards.py again"):
        _ = shards.index
    with pytest.raises(InputError, match="damaged"):
        shards.read_group(shards.files[0], 0)
    write_manifest(folder, replace(shards.manifest, details={}), files={})
    with pytest.raises(InputError, match=r"details\.files is missing .*prepare_shards"):
        _ = open_shards(folder.uri).files


def test_an_empty_quarantine_replaces_the_previous_one(folder: Folder) -> None:
    write_quarantine(folder, [Fault("x:1", "no text", "p.png")])
    assert pq.read_table(folder.path_of(QUARANTINE)).to_pylist() == [
        {"photo_id": "x:1", "reason": "no text", "file": "p.png", "detail": None, "content": None}
    ]
    write_quarantine(folder, [])
    assert pq.read_table(folder.path_of(QUARANTINE)).num_rows == 0


@pytest.mark.parametrize("cut", [False, True])
def test_a_file_that_is_missing_or_cut_is_not_published(folder: Folder, cut: bool) -> None:
    publish(folder, [write_rows(folder, 0, [row(0)])], {"ok": 1}, {})
    before = open_shards(folder.uri).manifest
    parts = [write_rows(folder, n, [row(n)]) for n in range(3)]
    [name] = parts[1].sizes
    folder.write(name, b"PAR1") if cut else folder.remove(name)
    with pytest.raises(InputError, match=f"{name}: {'has 4 bytes instead of' if cut else 'missing'}"):
        publish(folder, parts, {"ok": 3}, {})
    assert open_shards(folder.uri).manifest == before
    assert open_shards(folder.uri).index["photo_id"].to_pylist() == [row(0)["photo_id"]]
