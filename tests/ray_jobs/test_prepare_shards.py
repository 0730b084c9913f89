import argparse
import io
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ray_jobs.jobs.prepare_shards import prepare_shards
from ray_jobs.prepare_shards import parser
from stbir.data.schema import SHARD_SCHEMA
from stbir.data.shard_writer import QUARANTINE
from stbir.data.shards import Shards, open_shards
from stbir.data.sources.registry import open_source
from stbir.errors import InputError, JobFailedError
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, content_digest, write_manifest
from tests.conftest import run_command
from tests.data.image_files import png, sketch_png, write_files


def arguments(source: str, out: object, *more: object) -> argparse.Namespace:
    return parser().parse_args(["--source", source, "--out", str(out), *map(str, more)])


def prepare(source: str, out: object, *more: object) -> dict[str, Any]:
    return prepare_shards(arguments(source, out, *more))


def rows(shards: Shards) -> list[dict[str, Any]]:
    files = [shards.folder.read(name) for name in shards.files]
    return [row for data in files for row in pq.read_table(io.BytesIO(data)).to_pylist()]


def quarantine(out: object) -> set[tuple[str, str, str]]:
    table = pq.read_table(f"{out}/{QUARANTINE}").to_pylist()
    return {(row["photo_id"], row["reason"], (row["file"] or "").rpartition("/")[2]) for row in table}


def line(number: int, **changes: object) -> dict[str, object]:
    plain = {"id": f"x:{number}", "split": "train", "category": "x", "photo": f"p{number}.png"}
    return {**plain, "sketches": [f"s{number}.png"], "text": f"text {number}", **changes}


def manifest(root: Path, lines: list[dict[str, object]], files: dict[str, bytes | str]) -> str:
    write_files(root, {**files, "manifest.jsonl": "\n".join(map(json.dumps, lines))})
    return f"manifest:{root}"


def images(count: int) -> dict[str, bytes | str]:
    return {f"{kind}{n}.png": make(n) for n in range(count) for kind, make in (("p", png), ("s", sketch_png))}


def valid_source(root: Path, photos: int) -> str:
    return manifest(root, [line(n) for n in range(photos)], images(photos))


def test_cluster_without_cpus_is_refused(tmp_path: Path, no_cpus: None) -> None:
    with pytest.raises(InputError, match="reading images needs 1 CPUs, the cluster has 0; start nodes with"):
        prepare("synthetic:4", tmp_path)


def test_rows_equal_the_source_entries_in_order(
    tmp_path: Path, ray_cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    summary = prepare("synthetic:20", tmp_path, "--rows-per-file", 8)
    source = open_source("synthetic:20")
    shards = open_shards(str(tmp_path))
    assert rows(shards) == [
        {
            "photo_id": entry.photo_id,
            "category": entry.category,
            "class": entry.class_,
            "split": entry.split,
            "photo": source.read(entry.photo),
            "sketches": [source.read(sketch) for sketch in entry.sketches],
            "text": entry.text,
            "text_source": "synthetic",
            "sketch_count": len(entry.sketches),
        }
        for entry in source.entries
    ]
    sketches = sum(len(entry.sketches) for entry in source.entries)
    assert shards.manifest.counts == summary["counts"]
    assert shards.manifest.counts == {
        "in": 20,
        "ok": 20,
        "quarantined": 0,
        "photos": 20,
        "sketches": sketches,
        "bad_sketches": 0,
    }
    assert shards.manifest.digest == summary["digest"] == content_digest(shards.folder, shards.files)
    assert shards.manifest.details["source"] == "synthetic:20"
    assert len(shards.files) == summary["files"] == 3
    for name in shards.files:
        file = pq.ParquetFile(shards.folder.path_of(name))
        assert file.schema_arrow.equals(SHARD_SCHEMA)
        assert file.metadata.num_rows <= 8
    assert "20 photos in = 20 ok + 0 quarantined" in caplog.messages


def mixed_source(root: Path) -> str:
    """Six valid photos, one with bad sketches among its own, and one photo of each kind of fault."""
    lines = [line(n) for n in range(6)]
    lines[5]["sketches"] = ["s5.png", "torn.png", "absent.png", "blank.png"]
    lines += [
        line(10, photo="torn.png"),
        line(11, photo="absent.png"),
        line(12, sketches=[]),
        line(13, text=None),
        line(14, text="  "),
        line(15, sketches=["torn.png", "absent.png"]),
        line(3, text="duplicate"),
    ]
    files = images(20)
    return manifest(root, lines, {**files, "torn.png": png()[:40], "blank.png": png(255)})


FAULTS = {
    ("x:5", "sketch does not decode", "torn.png"),
    ("x:5", "sketch missing", "absent.png"),
    ("x:5", "sketch has no stroke", "blank.png"),
    ("x:10", "photo does not decode", "torn.png"),
    ("x:11", "photo missing", "absent.png"),
    ("x:12", "no sketch", "p12.png"),
    ("x:13", "no text", "p13.png"),
    ("x:14", "no text", "p14.png"),
    ("x:15", "sketch does not decode", "torn.png"),
    ("x:15", "sketch missing", "absent.png"),
    ("x:15", "no readable sketch", "p15.png"),
    ("x:3", "duplicate id", "p3.png"),
}


def test_bad_photos_are_in_quarantine_with_their_reason(tmp_path: Path, ray_cluster: str) -> None:
    summary = prepare(mixed_source(tmp_path / "in"), tmp_path / "out", "--max-error-rate", 1)
    assert quarantine(tmp_path / "out") == FAULTS
    assert summary["counts"] == {
        "in": 13,
        "ok": 6,
        "quarantined": 7,
        "photos": 6,
        "sketches": 6,
        "bad_sketches": 5,
    }
    assert sum(summary["reasons"].values()) == len(FAULTS)
    valid = rows(open_shards(str(tmp_path / "out")))
    assert [row["photo_id"] for row in valid] == [f"x:{n}" for n in range(6)]
    assert (valid[3]["text"], valid[5]["sketches"]) == ("text 3", [sketch_png(5)])


def test_above_the_error_rate_the_old_shards_stay(tmp_path: Path, ray_cluster: str) -> None:
    out = tmp_path / "out"
    prepare(valid_source(tmp_path / "valid", 4), out)
    before = sorted(p for p in (out / "data").iterdir())
    with pytest.raises(JobFailedError, match=r"13 photos in = 6 ok \+ 7 quarantined") as failure:
        prepare(mixed_source(tmp_path / "in"), out)
    assert failure.value.summary["counts"]["quarantined"] == 7
    assert quarantine(out) == FAULTS
    assert len(rows(open_shards(str(out)))) == 4
    assert sorted(p for p in (out / "data").iterdir()) == before


def test_error_rate_counts_sketches_and_empty_shards_are_refused(tmp_path: Path, ray_cluster: str) -> None:
    lines = [line(0, sketches=["s0.png", "torn.png"])]
    torn = manifest(tmp_path / "a", lines, {"p0.png": png(), "s0.png": sketch_png(), "torn.png": b""})
    with pytest.raises(JobFailedError, match="1 bad sketches"):
        prepare(torn, tmp_path / "out", "--max-error-rate", 0.49)
    assert prepare(torn, tmp_path / "out", "--max-error-rate", 0.5)["counts"]["ok"] == 1
    none = manifest(tmp_path / "b", [line(0, text=None)], {"p0.png": png(), "s0.png": sketch_png()})
    with pytest.raises(
        JobFailedError, match=r"no photo is valid \(with --require sketch . photo, caption.py"
    ):
        prepare(none, tmp_path / "none", "--max-error-rate", 1)
    assert not (tmp_path / "none/manifest.json").exists()


@pytest.mark.parametrize(
    ("required", "ids"),
    [
        ("sketch,text", ["x:0"]),
        ("text", ["x:0", "x:1", "x:3"]),
        ("sketch", ["x:0", "x:2"]),
        ("photo", ["x:0", "x:1", "x:2", "x:3"]),
    ],
)
def test_require_selects_photos(tmp_path: Path, ray_cluster: str, required: str, ids: list[str]) -> None:
    lines = [line(0), line(1, sketches=[]), line(2, text=None), line(3, sketches=["torn.png"])]
    files = images(4)
    source = manifest(tmp_path, lines, {**files, "torn.png": b"?"})
    prepare(source, tmp_path / "out", "--require", required, "--max-error-rate", 1, "--split", "test")
    table = open_shards(str(tmp_path / "out")).select_split("test")
    assert table["photo_id"].to_pylist() == ids


def test_folds_distribute_all_photos_except_the_test_split(tmp_path: Path, ray_cluster: str) -> None:
    files = images(8)
    lines = [line(n, split="test" if n == 7 else "val" if n == 6 else "train") for n in range(8)]
    prepare(manifest(tmp_path, lines, files), tmp_path / "out", "--folds", 3)
    index = open_shards(str(tmp_path / "out")).index
    split = dict(zip(index["photo_id"].to_pylist(), index["split"].to_pylist(), strict=True))
    assert Counter(split.values()) == {"fold0": 3, "fold1": 2, "fold2": 2, "test": 1}
    assert split["x:7"] == "test"


def test_s3_in_and_out(tmp_path: Path, s3: str, ray_cluster: str) -> None:
    valid_source(tmp_path, 5)
    folder = f"{s3}/{tmp_path.name}"
    for path in tmp_path.iterdir():
        Folder(f"{folder}/in").write(path.name, path.read_bytes())
    counts = prepare(f"manifest:{folder}/in", f"{folder}/out", "--rows-per-file", 2)["counts"]
    assert (counts["in"], counts["ok"]) == (5, 5)
    written = rows(open_shards(f"{folder}/out"))
    assert [(row["photo"], row["sketches"]) for row in written] == [
        (png(n), [sketch_png(n)]) for n in range(5)
    ]


def test_a_folder_in_place_of_a_photo_is_a_missing_photo(tmp_path: Path, ray_cluster: str) -> None:
    source = valid_source(tmp_path / "in", 3)
    (tmp_path / "in/p1.png").unlink()
    (tmp_path / "in/p1.png").mkdir()
    prepare(source, tmp_path / "out", "--max-error-rate", 1)
    [fault] = pq.read_table(tmp_path / "out/quarantine.parquet").to_pylist()
    assert (fault["photo_id"][-1], fault["reason"]) == ("1", "photo missing")


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("holiday:x", [], "KIND one of"),
        ("qmul:{tmp}/nowhere", [], "no photo in trainB/"),
        ("synthetic:0", [], "contains no photo"),
        ("synthetic:4", ["--max-error-rate", 2], "--max-error-rate: 2.0 is not a share"),
        ("synthetic:4", ["--rows-per-file", 0], "--rows-per-file: 0 is less than 1"),
    ],
)
def test_invalid_input_is_refused(tmp_path: Path, source: str, more: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(source.replace("{tmp}", str(tmp_path)), tmp_path / "out", *more)


def test_artifact_of_another_kind_is_not_overwritten(tmp_path: Path) -> None:
    write_manifest(Folder(str(tmp_path)), Manifest("checkpoint", "sha256:0", {}), files={})
    with pytest.raises(InputError, match="holds a checkpoint, not shards"):
        prepare("synthetic:4", tmp_path)


def test_missing_bucket_is_named(s3: str, ray_cluster: str) -> None:
    with pytest.raises(InputError, match="s3://no-such-bucket/x: cannot be read or written"):
        prepare("synthetic:4", "s3://no-such-bucket/x")


def test_invalid_input_exits_2_with_one_line(tmp_path: Path) -> None:
    ran = run_command("prepare_shards", "--source", f"manifest:{tmp_path}", "--out", tmp_path / "out")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.strip().splitlines()[-1].startswith("prepare_shards: manifest:")
    assert "Traceback" not in ran.stderr
