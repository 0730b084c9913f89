"""Conditions: as people write them, as programs make them, as they are sent, and what is refused."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from stbir_client.condition import Condition, as_json
from stbir_client.errors import InputError

SIGNS = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
names = some.from_regex(r"\A[a-zA-Zäß_]([a-zA-Z0-9_ ]{0,8}[a-zA-Z0-9_])?\Z").filter(lambda n: " in " not in n)
quotable = some.text().filter(lambda text: '"' not in text or "'" not in text)
values = quotable | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False)


def written(value: Any) -> str:
    """As a careful person writes it: every text in quotes."""
    if not isinstance(value, str):
        return str(value)
    return f"'{value}'" if '"' in value else f'"{value}"'


@given(names, some.sampled_from(list(SIGNS)), values, some.sampled_from(["", " "]))
def test_what_is_written_is_read(column: str, op: Any, value: Any, gap: str) -> None:
    read = Condition.read(f"{column}{gap}{SIGNS[op]}{gap}{written(value)}")
    assert read == Condition(column, op, value)
    assert type(read.value) is type(value)


@given(names, some.lists(values, min_size=1, max_size=5))
def test_lists_are_read(column: str, listed: list[Any]) -> None:
    read = Condition.read(f"{column} in {', '.join(map(written, listed))}")
    assert read == Condition(column, "in", listed)


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
        ("'a in b'", None, None, None),
    ],
)
def test_forms_that_people_write(text: str, column: str | None, op: Any, value: Any) -> None:
    if column is None:
        column, op, value = "'a", "in", ["b'"]
    assert Condition.read(text) == Condition(column, op, value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is no condition; write COLUMN=VALUE"),
        ("price", "'price' is no condition"),
        ("<30", "'<30' is no condition"),
        ("price like 3", "is no condition"),
        ("price<", "'price<' lacks a value; write ''"),
        ("shop in a,,b", "'shop in a,,b' lacks a value"),
        ("shop in a,", "lacks a value"),
        ("shop in ", "lacks a value"),
    ],
)
def test_what_is_no_condition(text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        Condition.read(text)
    assert str(error.value).startswith("where: ")
    assert says in str(error.value)


@given(some.text())
def test_any_text_is_a_condition_or_refused_in_one_line(text: str) -> None:
    try:
        as_json([Condition.read(text)])
        said = ""
    except InputError as error:
        said = str(error)
    assert said.isprintable()


def test_values_of_programs() -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    listed = [np.int64(4), np.float32(0.5).item(), "a", True, moment]
    assert as_json([Condition("x", "in", listed)]) == [
        {"column": "x", "op": "in", "value": [4, 0.5, "a", True, "2026-01-31T12:00:00+00:00"]}
    ]


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (Condition("x", "like", 3), "where.1.op: 'like' is none of eq, ne"),  # type: ignore[arg-type]
        (Condition(5, "eq", 3), "where.1.column: 5 is no text"),  # type: ignore[arg-type]
        (Condition("x", "eq", None), "where.1.value: None is no text, number"),  # type: ignore[arg-type]
        (Condition("x", "eq", [1]), "where.1.value: [1] is no text, number"),
        (Condition("x", "eq", math.nan), "where.1.value: nan is not finite"),
        (Condition("x", "in", "abc"), "where.1.value: in takes a list"),
        (Condition("x", "in", []), "where.1.value: the list is empty"),
        (Condition("x", "eq", "\udcff"), "where.1.value: has characters"),
        ("x=3", "where.1: 'x=3' is no Condition"),
        ({"column": "x", "op": "eq", "value": 3}, "where.1: {'column'"),
    ],
)
def test_what_is_not_sent(condition: Any, says: str) -> None:
    with pytest.raises(InputError) as error:
        as_json([Condition("x", "eq", 1), condition])
    assert str(error.value).startswith(says)
