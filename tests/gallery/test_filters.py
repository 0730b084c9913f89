"""Typed conditions: what Lance finds by the rendered filter is what plain Python finds by the condition."""

import operator
from datetime import UTC, datetime, timedelta

import lance
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from stbir.errors import InputError
from stbir.gallery.filters import OPS, Condition, filterable, rendered

TEXTS = ["", "a", "it's", 'a "quoted" one', "x' OR 'a'='a", "`", "--", "é\n", None]
START = datetime(2024, 1, 1, tzinfo=UTC)
VALUES = {
    "it's a b": TEXTS,
    "select": [0, 1, -1, 2**63 - 1, 1 - 2**63, 5, None, 7, 8],
    "Größe": [0.0, -0.5, 1e-7, 3e20, 1.0, -1e-300, None, 2.5, 9.0],
    "flag": [True, False, None, True, False, True, False, True, None],
    "naive": [START.replace(tzinfo=None) + timedelta(hours=n) for n in range(8)] + [None],
    "zoned": [START + timedelta(hours=n) for n in range(8)] + [None],
}
TYPES = {
    "it's a b": pa.string(),
    "select": pa.int64(),
    "Größe": pa.float64(),
    "flag": pa.bool_(),
    "naive": pa.timestamp("ns"),
    "zoned": pa.timestamp("ms", "America/New_York"),
}
TABLE = pa.table({name: pa.array(VALUES[name], TYPES[name]) for name in VALUES})
COMPARE = {
    **{op: getattr(operator, op) for op in ("eq", "ne", "lt", "le", "gt", "ge")},
    "in": lambda a, b: a in b,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return lance.write_dataset(TABLE, str(tmp_path_factory.mktemp("conditions") / "t"))


def slow(condition: Condition) -> list[int]:
    values = [_utc(value) for value in VALUES[condition.column]]
    wanted = condition.value
    wanted = list(map(_utc, wanted)) if condition.op == "in" else _utc(wanted)
    return [n for n, value in enumerate(values) if value is not None and COMPARE[condition.op](value, wanted)]


def _utc(value):
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


@settings(max_examples=60)
@given(data=some.data())
def test_a_filter_finds_what_python_finds(dataset, data):
    column = data.draw(some.sampled_from(list(VALUES)))
    op = data.draw(some.sampled_from(["eq", "ne", "in"] if column == "flag" else OPS))
    there = some.sampled_from([value for value in VALUES[column] if value is not None])
    value = data.draw(some.lists(there, min_size=1, max_size=3) if op == "in" else there)
    condition = Condition(column, op, value)
    found = dataset.to_table(columns=[], filter=rendered([condition], dataset.schema).text, with_row_id=True)
    assert sorted(found["_rowid"].to_pylist()) == slow(condition)


def test_several_must_all_be_met(dataset):
    where = [Condition("select", "ge", 1), Condition("flag", "eq", True)]
    assert dataset.count_rows(rendered(where, dataset.schema).text) == len(
        set(slow(where[0])) & set(slow(where[1]))
    )
    assert rendered([], dataset.schema) is None


def test_a_time_may_be_text_with_an_offset(dataset):
    where = [Condition("zoned", "ge", "2024-01-01T03:00:00+01:00")]
    assert dataset.count_rows(rendered(where, dataset.schema).text) == 6


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (Condition("nowhere", "eq", 1), r"where\.0\.column: there is no 'nowhere'; there is it's a b"),
        (Condition("1=1 --", "eq", 1), r"where\.0\.column"),
        (Condition("select", "like", 1), r"where\.0\.op: 'like'"),
        (Condition("flag", "lt", True), r"where\.0\.op: lt"),
        (Condition("select", "eq", "1 OR 1=1"), r"where\.0\.value: '1 OR 1=1' is not a whole number"),
        (Condition("select", "eq", True), r"where\.0\.value"),
        (Condition("select", "eq", 2**63), r"where\.0\.value"),
        (Condition("Größe", "eq", float("nan")), r"where\.0\.value: 'nan' is not a finite"),
        (Condition("it's a b", "eq", 3), r"where\.0\.value: '3' is not a text"),
        (Condition("it's a b", "in", "abc"), r"where\.0\.value: in takes a list"),
        (Condition("it's a b", "in", []), r"where\.0\.value: in takes a list"),
        (Condition("zoned", "lt", "yesterday"), r"where\.0\.value: 'yesterday' is not a time"),
        (Condition("zoned", "lt", 7), r"where\.0\.value"),
    ],
)
def test_what_does_not_fit_is_refused(condition, says):
    with pytest.raises(InputError, match=says):
        rendered([condition], TABLE.schema)


def test_vectors_and_pictures_are_not_filtered_by():
    schema = pa.schema(
        [("embedding", pa.list_(pa.float32(), 4)), ("thumbnail", pa.binary()), ("n", pa.int8())]
    )
    assert list(filterable(schema)) == ["n"]
