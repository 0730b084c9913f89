"""A table that grows, whoever is killed on the way, and what is known of its rows."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbir.errors import InputError
from stbir.gallery.existing_rows import Known, changes, known
from stbir.gallery.fingerprint import LETTERS, fingerprint, short
from stbir.gallery.gallery import open_table, schema
from stbir.gallery.publish import prepare, publish
from stbir.gallery.table_writer import Growth, forget_unread, grow, newest_tagged, without
from stbir.storage.folder import Folder

DIM = 4
FIELDS = pa.schema([pa.field("price", pa.float64())])
COLUMNS = schema(DIM, FIELDS)
Facts = dict[str, tuple[str, float]]  # id → content, price


def table(photos: Facts) -> pa.Table:
    vectors = np.random.default_rng(len(photos)).normal(size=(len(photos), DIM)).astype(np.float32)
    columns = [
        pa.array(list(photos)),
        pa.array(["thing"] * len(photos)),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
        pa.array([b""] * len(photos), pa.binary()),
        pa.array([content for content, _ in photos.values()], pa.string()),
        pa.array([price for _, price in photos.values()], pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=COLUMNS)


def run(folder: Folder, catalogue: Facts, killed_after: int | None = None) -> Growth:
    """What the job does with a catalogue, two photos at a time; killed: what is committed stays."""
    growth = grow(folder, COLUMNS, "ours")
    there = known(growth.dataset, FIELDS.names)
    photos = list(catalogue.items())
    for start in range(0, len(photos), 2):
        some = dict(photos[start : start + 2])
        prints = {n: fingerprint(n, "thing", content, [price]) for n, (content, price) in some.items()}
        before = there.prints_of(list(some))
        old = {name for name in some if prints[name] in before.get(name, [])}
        there.keep((name, prints[name]) for name in old)
        growth.add(table({name: some[name] for name in some if name not in old}))
        if killed_after is not None and start >= killed_after:
            return growth
        growth.commit()
    growth.remove(there.to_go())
    return growth


def rows(growth: Growth) -> list[tuple[str, str, float]]:
    there = open_table(growth._folder).to_table(columns=["photo_id", "content", "price"])
    return [tuple(row.values()) for row in there.to_pylist()]


FIRST: Facts = {f"{n}": (f"content {n}", n / 2) for n in range(12)}
SECOND: Facts = {
    **{name: fact for name, fact in FIRST.items() if name not in ("3", "8")},
    "5": ("changed", 2.5),
    "6": ("content 6", 99.0),
    "new": ("content", float("nan")),
}


@pytest.mark.parametrize("killed_after", [0, 4, 8])
def test_a_run_killed_on_the_way_ends_as_one_that_was_not(tmp_path: Path, killed_after: int) -> None:
    whole, cut = Folder(str(tmp_path / "whole")), Folder(str(tmp_path / "cut"))
    for catalogue in (FIRST, SECOND):
        run(cut, catalogue, killed_after)
        run(cut, catalogue, killed_after + 2)
        before, after = rows(run(whole, catalogue)), rows(run(cut, catalogue))
        assert repr(before) == repr(after)
        assert sorted(name for name, _, _ in after) == sorted(catalogue)
    assert repr(rows(run(cut, SECOND))) == repr(after)  # again: nothing happens
    assert [name for name, _, _ in after] == ["0", "1", "2", "4", "7", "9", "10", "11", "5", "6", "new"]


def test_another_checkpoint_or_other_columns_begin_anew(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    publish(folder, prepare(folder, run(folder, FIRST).dataset.version, "ours", None), {"in": 12})
    assert grow(folder, COLUMNS, "ours").dataset.count_rows() == 12
    for columns, digest in ((COLUMNS, "another"), (schema(DIM), "ours")):
        assert grow(folder, columns, digest).dataset.count_rows() == 0
        assert open_table(folder, "published").count_rows() == 12


def test_steps_on_the_way_are_forgotten_and_what_was_read_is_not(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    for catalogue in (FIRST, SECOND):
        since = newest_tagged(folder) if Path(tmp_path, "photos.lance").exists() else 0
        candidate = prepare(folder, run(folder, catalogue).dataset.version, "ours", None)
        publish(folder, candidate, {"in": 12})
        forget_unread(folder, since, candidate.version)
    versions = [each["version"] for each in open_table(folder).versions()]
    assert len(versions) == 2
    assert [open_table(folder, version).count_rows() for version in versions] == [12, 11]


def test_deletion_starts_from_what_is_published(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with pytest.raises(InputError, match="no gallery is published"):
        without(folder, ["1"])
    publish(folder, prepare(folder, run(folder, FIRST).dataset.version, "ours", None), {"in": 12})
    run(folder, SECOND, killed_after=6)
    before = open_table(folder).version
    with pytest.raises(InputError, match="written and not published; let that job finish first"):
        without(folder, ["1"])
    assert open_table(folder).version == before
    publish(folder, prepare(folder, run(folder, SECOND).dataset.version, "ours", None), {"in": 11})
    for _ in range(2):  # a deletion that was not published is no obstacle to the next
        smaller = without(folder, ["1", "7", "1"])
        assert smaller.to_table(columns=["photo_id"])["photo_id"].to_pylist() == [
            *("0", "2", "4", "9", "10", "11", "5", "6", "new")
        ]


def test_a_photo_out_of_reach_keeps_its_newest_row(tmp_path: Path) -> None:
    growth = grow(Folder(str(tmp_path)), COLUMNS, "ours")
    for content in ("old", "new"):
        growth.add(table({"x": (content, 0.0), content: ("", 0.0)}))
        growth.commit()
    there = known(growth.dataset, FIELDS.names)
    there.keep_newest(["x", "nowhere"])
    growth.remove(there.to_go())
    assert rows(growth) == [("x", "new", 0.0)]


def test_metadata_of_every_type_comes_back_as_it_went_in(tmp_path: Path) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 678901)
    values = {
        "text": (pa.string(), "it's"),
        "yes": (pa.bool_(), True),
        "whole": (pa.int64(), -(2**60)),
        "number": (pa.float64(), 0.1),
        "when": (pa.timestamp("us"), when),
        "there": (pa.timestamp("us", "Europe/Paris"), when.replace(tzinfo=UTC)),
        "nothing": (pa.string(), None),
    }
    fields = pa.schema([(name, kind) for name, (kind, _) in values.items()])
    growth = grow(Folder(str(tmp_path)), schema(DIM, fields), "ours")
    rows = table({"x": ("c", 0.0)}).drop_columns(["price"])
    for name, (kind, value) in values.items():
        rows = rows.append_column(pa.field(name, kind), pa.array([value], kind))
    given = [rows[name][0].as_py() for name in values]
    growth.add(rows)
    growth.commit()
    there = known(growth.dataset, fields.names)
    assert there.prints_of(["x"]) == {"x": [fingerprint("x", "thing", "c", given)]}
    assert grow(Folder(str(tmp_path)), schema(DIM, fields), "ours").dataset.count_rows() == 1


PHOTOS = st.dictionaries(st.text(max_size=3), st.integers(0, 2), max_size=20)


@settings(max_examples=30)
@given(before=PHOTOS, after=PHOTOS)
def test_changes_are_those_of_two_sets(before: dict[str, int], after: dict[str, int]) -> None:
    counted = changes(of(before), of(after))
    assert counted == {
        "new": len(after.keys() - before.keys()),
        "changed": sum(name in before and before[name] != fact for name, fact in after.items()),
        "removed": len(before.keys() - after.keys()),
    }


def of(photos: dict[str, int]) -> Known:
    ids = np.array([short(name) for name in photos], f"S{LETTERS}")
    prints = np.array([fingerprint(n, "", str(fact), ()) for n, fact in photos.items()], f"S{LETTERS}")
    return Known(ids, prints, np.arange(len(photos), dtype=np.uint64))
