"""Conditions as Lance filters: Lance selects the rows that the same comparison in Python selects."""

import contextlib
import math
import operator
from datetime import UTC, datetime, timedelta

import lance
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbir.errors import InputError
from stbir.gallery.filters import OPS, Condition, filterable_columns, render_filter, suggest

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
        (Condition("select", "eq", "1 OR 1=1"), r"where\.0\.value: '1 OR 1=1' is not an integer from"),
        (Condition("select", "eq", True), r"where\.0\.value"),
        (Condition("select", "eq", 2**63), r"where\.0\.value"),
        (Condition("Größe", "eq", float("nan")), r"where\.0\.value: 'nan' is not a finite"),
        (Condition("it's a b", "eq", 3), r"where\.0\.value: '3' is not valid Unicode text"),
        (Condition("it's a b", "in", "abc"), r"where\.0\.value: in takes a list"),
        (Condition("it's a b", "in", []), r"where\.0\.value: in takes a list"),
        (Condition("zoned", "lt", "yesterday"), r"where\.0\.value: 'yesterday' is not a timestamp"),
        (Condition("zoned", "lt", 7), r"where\.0\.value"),
    ],
)
def test_invalid_condition_is_rejected(condition, message):
    with pytest.raises(InputError, match=message):
        render_filter([condition], TABLE.schema)


# Each type that a column may have, with the values of three rows.
TYPED = {
    **{str(kind): (kind, [1, 2, None]) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{str(kind): (kind, [1, 2, None]) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    **{str(kind): (kind, [1.5, 2.5, None]) for kind in (pa.float16(), pa.float32(), pa.float64())},
    **{str(kind): (kind, ["a", "b", None]) for kind in (pa.string(), pa.large_string())},
    "bool": (pa.bool_(), [True, False, None]),
    **{
        f"{unit} {zone}": (pa.timestamp(unit, zone), [0, one_second, None])
        for unit, one_second in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))
        for zone in (None, "America/New_York")
    },
}
HOSTILE = [10**400, -(10**400), 2**63, 2**64, 1e308, 5e-324, 70_000.0, float("nan"), float("inf")]
HOSTILE += [
    "\ud800",
    "a\0b",
    "9999-12-31T23:59:59-01:00",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31",
    "0001-01-01",
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes()
    | st.sampled_from(HOSTILE),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A table with a column of each type."""
    columns = {name: pa.array(values, kind) for name, (kind, values) in TYPED.items()}
    return lance.write_dataset(pa.table(columns), str(tmp_path_factory.mktemp("typed") / "t"))


@settings(max_examples=400)
@given(
    column=st.sampled_from(list(TYPED)) | st.text(max_size=5),
    op=st.sampled_from(list(OPS)) | st.text(max_size=5),
    value=json_values,
)
def test_any_value_is_evaluated_or_refused(typed, column, op, value):
    """Each filter that is rendered is one that Lance evaluates."""
    try:
        sql = render_filter([Condition(column, op, value)], typed.schema).sql
    except InputError as error:
        message = str(error)
        assert message.startswith("where.0.")
        assert "\n" not in message
        assert len(message.encode()) < 400
    else:
        assert 0 <= typed.count_rows(sql) <= 2


@pytest.mark.parametrize("column", TYPED)
@pytest.mark.parametrize("value", [*HOSTILE, 10**5000], ids=lambda value: type(value).__name__)
def test_hostile_value_matches_nothing_or_is_refused(typed, column, value):
    for op, each in (("eq", value), ("in", [value])):
        with contextlib.suppress(InputError):
            assert typed.count_rows(render_filter([Condition(column, op, each)], typed.schema).sql) == 0


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
@given(micros=st.integers(-(10**7), 10**7) | st.sampled_from([10**6, 10**3]) | st.integers(-(10**16), 10**16))
def test_timestamp_compares_exactly_or_is_refused(typed, unit, zone, micros):
    """Lance alone truncates a time finer than the column, and finds nothing below one of the year 9999."""
    column, op = f"{unit} {zone}", "lt"
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    step, last = {"s": (10**6, math.inf), "ms": (10**3, math.inf)}.get(unit, (1, 2**63 // 1000))
    if micros % step or (unit == "ns" and abs(micros) > last):
        with pytest.raises(InputError, match=r"where\.0\.value: .* is not a time that the column can hold"):
            render_filter([Condition(column, op, time)], typed.schema)
    else:
        rows = [seconds * 10**6 for seconds in (0, 1)]
        count = typed.count_rows(render_filter([Condition(column, op, time)], typed.schema).sql)
        assert count == sum(row < micros for row in rows)


def test_an_unknown_name_lists_the_most_similar_of_thousands():
    names = [f"category {number}" for number in range(5000)]
    assert "category 432, " in suggest("categry 4321", names)
    assert suggest("categry 4321", names).endswith(", … (5000 in all)")
    assert len(suggest("x" * 10_000, names)) < 200
    assert suggest("b", ["a", "c"]) == "a, c"


def test_vectors_and_binary_columns_are_not_filterable():
    vector = pa.list_(pa.float32(), 4)
    schema = pa.schema([("embedding", vector), ("thumbnail", pa.binary()), ("n", pa.int8())])
    assert list(filterable_columns(schema)) == ["n"]
