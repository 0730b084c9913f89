"""The table writer, whose jobs may be killed at any point, and the rows that exist before a job."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbir.errors import InputError
from stbir.gallery.existing_rows import ROW, ExistingRows, count_changes, read_rows
from stbir.gallery.fingerprint import HASH_TYPE, fingerprint, short_hashes
from stbir.gallery.gallery import open_table
from stbir.gallery.lance_writer import LanceWriter
from stbir.gallery.partitioned_records import Records
from stbir.gallery.publish import prepare, publish
from stbir.gallery.table import schema
from stbir.gallery.table_writer import (
    delete_intermediate_versions,
    delete_photos,
    open_writer,
)
from stbir.gallery.versions import optimize
from stbir.storage.folder import Folder

DIM = 4
FIELDS = pa.schema([pa.field("price", pa.float64())])
SCHEMA = schema(DIM, FIELDS)
Photos = dict[str, tuple[str, float]]  # id → content, price


def make_table(photos: Photos) -> pa.Table:
    vectors = np.random.default_rng(len(photos)).normal(size=(len(photos), DIM)).astype(np.float32)
    columns = [
        pa.array(list(photos)),
        pa.array(["thing"] * len(photos)),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
        pa.array([b""] * len(photos), pa.binary()),
        pa.array([content for content, _ in photos.values()], pa.string()),
        pa.array([price for _, price in photos.values()], pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def run_job(
    folder: Folder,
    catalogue: Photos,
    killed_after: int | None = None,
    before_commit: Callable[[], object] = lambda: None,
) -> LanceWriter:
    """Write a catalogue as the embedding job does, two photos at a time; a killed job keeps its commits."""
    writer = open_writer(folder, SCHEMA, "checkpoint")
    existing = read_existing_rows(writer)
    photos = list(catalogue.items())
    for start in range(0, len(photos), 2):
        batch = dict(photos[start : start + 2])
        prints = {n: fingerprint(n, "thing", content, [price]) for n, (content, price) in batch.items()}
        found = existing.find(short_hashes(batch), "fingerprint", np.array([*prints.values()], HASH_TYPE))
        unchanged = {name for name, row in zip(batch, found, strict=True) if row >= 0}
        existing.is_retained[found[found >= 0]] = True
        if new := {name: photo for name, photo in batch.items() if name not in unchanged}:
            writer.append(make_table(new))
            before_commit()
        if killed_after is not None and start >= killed_after:
            return writer
        writer.commit()
    writer.delete(existing.rows["row_id"][~existing.is_retained].tolist())
    return writer


def read_existing_rows(writer: LanceWriter, columns: list[str] = FIELDS.names) -> ExistingRows:
    return ExistingRows(np.concatenate([np.empty(0, ROW), *read_rows(writer.dataset, columns)]))


def publish_catalogue(folder: Folder, catalogue: Photos) -> int:
    candidate = prepare(folder, run_job(folder, catalogue).dataset.version, "checkpoint", None)
    publish(folder, candidate, {"in": len(catalogue)})
    return candidate.version


def table_rows(writer: LanceWriter) -> list[tuple[str, str, float]]:
    table = open_table(writer._folder).to_table(columns=["photo_id", "content", "price"])
    return [tuple(row.values()) for row in table.to_pylist()]


@contextmanager
def full_disk() -> Iterator[None]:
    """Writes to files fail with EFBIG, which is treated as ENOSPC is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


INITIAL: Photos = {f"{n}": (f"content {n}", n / 2) for n in range(12)}
UPDATED: Photos = {
    **{name: photo for name, photo in INITIAL.items() if name not in ("3", "8")},
    "5": ("changed", 2.5),
    "6": ("content 6", 99.0),
    "new": ("content", float("nan")),
}


@pytest.mark.parametrize("killed_after", [0, 4, 8])
def test_killed_job_resumes_to_the_same_table(tmp_path: Path, killed_after: int) -> None:
    uninterrupted, interrupted = (
        Folder(str(tmp_path / "uninterrupted")),
        Folder(str(tmp_path / "interrupted")),
    )
    for catalogue in (INITIAL, UPDATED):
        run_job(interrupted, catalogue, killed_after)
        run_job(interrupted, catalogue, killed_after + 2)
        expected = table_rows(run_job(uninterrupted, catalogue))
        rows = table_rows(run_job(interrupted, catalogue))
        assert repr(rows) == repr(expected)
        assert sorted(name for name, _, _ in rows) == sorted(catalogue)
    assert repr(table_rows(run_job(interrupted, UPDATED))) == repr(rows)  # a re-run changes nothing
    assert [name for name, _, _ in rows] == ["0", "1", "2", "4", "7", "9", "10", "11", "5", "6", "new"]


STEPS: dict[str, Callable[[Folder], object]] = {
    "append": lambda folder: run_job(folder, UPDATED),
    "delete": lambda folder: LanceWriter(folder, open_table(folder)).delete([0]),
    "new table": lambda folder: open_writer(folder, schema(DIM), "checkpoint"),
    "prepare": lambda folder: prepare(folder, open_table(folder).version, "checkpoint", None),
    "delete photos": lambda folder: delete_photos(folder, ["1"]),
    "optimize": lambda folder: optimize(folder),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_full_disk_is_named_in_one_line(tmp_path: Path, step: Callable[[Folder], object]) -> None:
    folder = Folder(str(tmp_path))
    publish_catalogue(folder, INITIAL)
    with full_disk(), pytest.raises(InputError) as error:
        step(folder)
    assert str(error.value).startswith(f"{tmp_path}/photos.lance: cannot be read or written (")
    assert str(error.value).endswith(
        "; the file system cannot hold a file of this size; choose another folder"
    )
    assert "\n" not in str(error.value)
    assert open_table(folder, "published").count_rows() == len(INITIAL)


def test_another_checkpoint_or_schema_starts_an_empty_table(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    publish_catalogue(folder, INITIAL)
    assert open_writer(folder, SCHEMA, "checkpoint").dataset.count_rows() == 12
    for columns, digest in ((SCHEMA, "another"), (schema(DIM), "checkpoint")):
        assert open_writer(folder, columns, digest).dataset.count_rows() == 0
        assert open_table(folder, "published").count_rows() == 12


def test_intermediate_versions_are_deleted(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    for catalogue in (INITIAL, UPDATED):
        delete_intermediate_versions(folder, publish_catalogue(folder, catalogue))
    versions = [each["version"] for each in open_table(folder).versions()]
    assert len(versions) == 2
    assert [open_table(folder, version).count_rows() for version in versions] == [12, 11]


def test_deletion_starts_from_the_published_version(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with pytest.raises(InputError, match="no gallery is published"):
        delete_photos(folder, ["1"])
    publish_catalogue(folder, INITIAL)
    run_job(folder, UPDATED, killed_after=6)
    before = open_table(folder).version
    with pytest.raises(InputError, match="has rows that are not published; let that job finish"):
        delete_photos(folder, ["1"])
    assert open_table(folder).version == before
    publish_catalogue(folder, UPDATED)
    for _ in range(2):  # an unpublished deletion does not block the next one
        table = delete_photos(folder, ["1", "7", "1"]).to_table(columns=["photo_id"])
        assert table["photo_id"].to_pylist() == ["0", "2", "4", "9", "10", "11", "5", "6", "new"]


def test_unreachable_photo_keeps_its_newest_row(tmp_path: Path) -> None:
    writer = open_writer(Folder(str(tmp_path)), SCHEMA, "checkpoint")
    for content in ("old", "new"):
        writer.append(make_table({"x": (content, 0.0), content: ("", 0.0)}))
        writer.commit()
    existing = read_existing_rows(writer)
    existing.retain(short_hashes(["x", "unknown"]), np.array([b"", b""], HASH_TYPE))
    writer.delete(existing.rows["row_id"][~existing.is_retained].tolist())
    assert table_rows(writer) == [("x", "new", 0.0)]


def test_fingerprint_survives_a_round_trip_of_all_metadata_types(tmp_path: Path) -> None:
    time = datetime(2026, 1, 2, 3, 4, 5, 678901)
    values = {
        "string": (pa.string(), "it's"),
        "boolean": (pa.bool_(), True),
        "integer": (pa.int64(), -(2**60)),
        "float": (pa.float64(), 0.1),
        "timestamp": (pa.timestamp("us"), time),
        "zoned": (pa.timestamp("us", "Europe/Paris"), time.replace(tzinfo=UTC)),
        "null": (pa.string(), None),
    }
    fields = pa.schema([(name, data_type) for name, (data_type, _) in values.items()])
    writer = open_writer(Folder(str(tmp_path)), schema(DIM, fields), "checkpoint")
    table = make_table({"x": ("c", 0.0)}).drop_columns(["price"])
    for name, (data_type, value) in values.items():
        table = table.append_column(pa.field(name, data_type), pa.array([value], data_type))
    metadata = [table[name][0].as_py() for name in values]
    writer.append(table)
    writer.commit()
    [row] = read_existing_rows(writer, fields.names).rows
    assert row["fingerprint"] == fingerprint("x", "thing", "c", metadata)
    assert open_writer(Folder(str(tmp_path)), schema(DIM, fields), "checkpoint").dataset.count_rows() == 1


PHOTOS = st.dictionaries(st.text(max_size=3), st.integers(0, 2), max_size=20)


@settings(max_examples=30)
@given(before=PHOTOS, after=PHOTOS)
def test_change_counts_match_set_operations(before: dict[str, int], after: dict[str, int]) -> None:
    assert count_changes(existing_rows(before), existing_rows(after)) == {
        "new": len(after.keys() - before.keys()),
        "changed": sum(name in before and before[name] != value for name, value in after.items()),
        "removed": len(before.keys() - after.keys()),
    }


def existing_rows(photos: dict[str, int]) -> Records:
    rows = np.zeros(len(photos), ROW)
    rows["id"] = short_hashes(photos)
    rows["fingerprint"] = [fingerprint(n, "", str(value), ()) for n, value in photos.items()]
    return rows
