"""Filters: parsing, conversion to JSON, and errors."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir.gallery import filters as server_filters
from stbir_client.errors import InputError
from stbir_client.filters import OPS, SYMBOLS, Condition, to_json

columns = st.from_regex(r"\A[a-zA-Zäß_]([a-zA-Z0-9_ ]{0,8}[a-zA-Z0-9_])?\Z").filter(lambda n: " in " not in n)
quotable = st.text().filter(lambda text: '"' not in text or "'" not in text)
values = quotable | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


def format_value(value: Any) -> str:
    """Text is quoted."""
    if not isinstance(value, str):
        return str(value)
    return f"'{value}'" if '"' in value else f'"{value}"'


def test_operators_are_those_of_the_server() -> None:
    assert tuple(server_filters.OPS) == OPS
    assert set(SYMBOLS.values()) == set(OPS)


@given(columns, st.sampled_from([*SYMBOLS.keys() - {"in"}]), values, st.sampled_from(["", " "]))
def test_comparisons_are_parsed(column: str, symbol: str, value: Any, space: str) -> None:
    parsed = Condition.parse(f"{column}{space}{symbol}{space}{format_value(value)}")
    assert parsed == Condition(column, SYMBOLS[symbol], value)
    assert type(parsed.value) is type(value)


@given(columns, st.lists(values, min_size=1, max_size=5))
def test_lists_are_parsed(column: str, items: list[Any]) -> None:
    parsed = Condition.parse(f"{column} in {', '.join(map(format_value, items))}")
    assert parsed == Condition(column, "in", items)


@pytest.mark.parametrize(
    ("text", "column", "op", "value"),
    [
        ("price<30", "price", "lt", 30),
        ("price >= 3.5", "price", "ge", 3.5),
        ("price==-1e3", "price", "eq", -1000.0),
        ("shop in a,b", "shop", "in", ["a", "b"]),
        ("shop in  a b , 7, it's", "shop", "in", ["a b", 7, "it's"]),
        ("name=red leather, soft", "name", "eq", "red leather, soft"),
        ("name!=''", "name", "ne", ""),
        ("code='007'", "code", "eq", "007"),
        ("code=007x", "code", "eq", "007x"),
        ("stock=TRUE", "stock", "eq", True),
        ("in stock=true", "in stock", "eq", True),
        ("day>2026-01-31", "day", "gt", "2026-01-31"),
        ("x=1_000", "x", "eq", "1_000"),
        ("x=nan", "x", "eq", "nan"),
        ("formula=a<b", "formula", "eq", "a<b"),
        ("'a in b'", "'a", "in", ["b'"]),
    ],
)
def test_unquoted_values(text: str, column: str, op: Any, value: Any) -> None:
    assert Condition.parse(text) == Condition(column, op, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a filter; write COLUMN=VALUE"),
        ("price", "'price' is not a filter"),
        ("<30", "'<30' is not a filter"),
        ("price like 3", "is not a filter"),
        ("price<", "'price<' has no value; write ''"),
        ("shop in a,,b", "'shop in a,,b' has no value"),
        ("shop in a,", "has no value"),
        ("shop in ", "has no value"),
    ],
)
def test_invalid_text_raises(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Condition.parse(text)
    assert str(error.value).startswith("where: ")
    assert message in str(error.value)


@given(st.text())
def test_any_text_is_a_filter_or_raises_one_line(text: str) -> None:
    try:
        to_json([Condition.parse(text)])
        message = ""
    except InputError as error:
        message = str(error)
    assert message.isprintable()


def test_python_values_become_json() -> None:
    time = datetime(2026, 1, 31, 12, tzinfo=UTC)
    items: list[Any] = [np.int64(4), np.float32(0.5).item(), "a", True, time]
    assert to_json([Condition("x", "in", items)]) == [
        {"column": "x", "op": "in", "value": [4, 0.5, "a", True, "2026-01-31T12:00:00+00:00"]}
    ]


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        (Condition("x", "like", 3), "where.1.op: 'like' is not one of eq, ne"),  # type: ignore[arg-type]
        (Condition(5, "eq", 3), "where.1.column: 5 is not a text"),  # type: ignore[arg-type]
        (Condition("x", "eq", None), "where.1.value: None is not a text, number"),  # type: ignore[arg-type]
        (Condition("x", "eq", [1]), "where.1.value: [1] is not a text, number"),
        (Condition("x", "eq", math.nan), "where.1.value: nan is not finite"),
        (Condition("x", "in", "abc"), "where.1.value: in takes a list"),
        (Condition("x", "in", []), "where.1.value: the list is empty"),
        (Condition("x", "eq", "\udcff"), "where.1.value: contains characters"),
        ("x=3", "where.1: 'x=3' is not a Condition"),
        ({"column": "x", "op": "eq", "value": 3}, "where.1: {'column'"),
    ],
)
def test_invalid_filters_raise(invalid: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        to_json([Condition("x", "eq", 1), invalid])
    assert str(error.value).startswith(message)
