"""Conditions as Lance filters: Lance selects the rows that the same comparison in Python selects."""

import operator
from datetime import UTC, datetime, timedelta

import lance
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbir.errors import InputError
from stbir.gallery.filters import OPS, Condition, filterable_columns, render_filter

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


def select_rows(condition: Condition) -> list[int]:
    """The numbers of the matching rows, evaluated in Python."""
    rows = [_utc(value) for value in VALUES[condition.column]]
    value = list(map(_utc, condition.value)) if condition.op == "in" else _utc(condition.value)
    return [n for n, row in enumerate(rows) if row is not None and COMPARE[condition.op](row, value)]


def _utc(value):
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


@settings(max_examples=60)
@given(data=st.data())
def test_filter_selects_the_same_rows_as_python(dataset, data):
    column = data.draw(st.sampled_from(list(VALUES)))
    op = data.draw(st.sampled_from(["eq", "ne", "in"] if column == "flag" else list(OPS)))
    values = st.sampled_from([value for value in VALUES[column] if value is not None])
    value = data.draw(st.lists(values, min_size=1, max_size=3) if op == "in" else values)
    condition = Condition(column, op, value)
    sql = render_filter([condition], dataset.schema).sql
    selected = dataset.to_table(columns=[], filter=sql, with_row_id=True)
    assert sorted(selected["_rowid"].to_pylist()) == select_rows(condition)


def test_conditions_are_combined_with_and(dataset):
    where = [Condition("select", "ge", 1), Condition("flag", "eq", True)]
    expected = set(select_rows(where[0])) & set(select_rows(where[1]))
    assert dataset.count_rows(render_filter(where, dataset.schema).sql) == len(expected)
    assert render_filter([], dataset.schema) is None


def test_timestamp_may_be_text_with_an_offset(dataset):
    where = [Condition("zoned", "ge", "2024-01-01T03:00:00+01:00")]
    assert dataset.count_rows(render_filter(where, dataset.schema).sql) == 6


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Condition("nowhere", "eq", 1), r"where\.0\.column: no column 'nowhere'; available: it's a b"),
        (Condition("1=1 --", "eq", 1), r"where\.0\.column"),
        (Condition("select", "like", 1), r"where\.0\.op: 'like' is not one of eq, ne"),
        (
            Condition("flag", "lt", True),
            r"where\.0\.op: lt does not apply to a boolean column",
        ),
        (Condition("select", "eq", "1 OR 1=1"), r"where\.0\.value: '1 OR 1=1' is not a 64-bit integer"),
        (Condition("select", "eq", True), r"where\.0\.value"),
        (Condition("select", "eq", 2**63), r"where\.0\.value"),
        (Condition("Größe", "eq", float("nan")), r"where\.0\.value: 'nan' is not a finite"),
        (Condition("it's a b", "eq", 3), r"where\.0\.value: '3' is not text"),
        (Condition("it's a b", "in", "abc"), r"where\.0\.value: in takes a list"),
        (Condition("it's a b", "in", []), r"where\.0\.value: in takes a list"),
        (Condition("zoned", "lt", "yesterday"), r"where\.0\.value: 'yesterday' is not a timestamp"),
        (Condition("zoned", "lt", 7), r"where\.0\.value"),
    ],
)
def test_invalid_condition_is_rejected(condition, message):
    with pytest.raises(InputError, match=message):
        render_filter([condition], TABLE.schema)


def test_vectors_and_binary_columns_are_not_filterable():
    vector = pa.list_(pa.float32(), 4)
    schema = pa.schema([("embedding", vector), ("thumbnail", pa.binary()), ("n", pa.int8())])
    assert list(filterable_columns(schema)) == ["n"]
