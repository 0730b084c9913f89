"""Typed conditions on the columns of a gallery. A caller names column, comparison and value; the filter that
Lance reads is written here, so that no text of a caller is ever read as a query."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.types as kinds

from stbir.errors import InputError

Op = Literal["eq", "ne", "lt", "le", "gt", "ge", "in"]
OPS: tuple[Op, ...] = get_args(Op)
_SIGNS = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_MOST_VALUES = 1000
_LEAST, _MOST = 1 - 2**63, 2**63 - 1  # Lance cannot read the one below


@dataclass(frozen=True)
class Condition:
    """`column` `op` `value`; for `in` the value is a list of them. A row that has no value meets none.

    Of a timestamp the value is a `datetime` or its ISO 8601 text; one without an offset is in UTC.
    """

    column: str
    op: Op
    value: Any


@dataclass(frozen=True)
class Filter:
    """Conditions as Lance reads them, and the columns that they are about."""

    text: str
    columns: frozenset[str]


def filterable(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The columns that conditions may name, with their types."""
    return {field.name: field.type for field in schema if _simple(field.type) and "`" not in field.name}


def rendered(where: Sequence[Condition], schema: pa.Schema) -> Filter | None:
    """All of the conditions as one filter; None where there are none.

    Raises InputError, naming `where.N.column`, `.op` or `.value`, for what does not fit the schema.
    """
    types = filterable(schema)
    terms = [_term(f"where.{n}", condition, types) for n, condition in enumerate(where)]
    return Filter(" AND ".join(terms), frozenset(each.column for each in where)) if terms else None


def _simple(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (
            kinds.is_string,
            kinds.is_large_string,
            kinds.is_boolean,
            kinds.is_integer,
            kinds.is_floating,
            kinds.is_timestamp,
        )
    )


def _term(at: str, condition: Condition, types: dict[str, pa.DataType]) -> str:
    if condition.column not in types:
        raise InputError(f"{at}.column: there is no {condition.column!r}; there is {', '.join(types)}")
    kind, op, value = types[condition.column], condition.op, condition.value
    if op not in OPS:
        raise InputError(f"{at}.op: {op!r} is none of {', '.join(OPS)}")
    if kinds.is_boolean(kind) and op not in ("eq", "ne", "in"):
        raise InputError(f"{at}.op: {op} does not order true and false; use eq or ne")
    column = f"`{condition.column}`"
    if op == "in":
        return f"{column} IN ({', '.join(_literal(f'{at}.value', each, kind) for each in _list(at, value))})"
    return f"{column} {_SIGNS[op]} {_literal(f'{at}.value', value, kind)}"


def _list(at: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_VALUES:
        raise InputError(f"{at}.value: in takes a list of 1 to {_MOST_VALUES} values")
    return value


def _literal(at: str, value: Any, kind: pa.DataType) -> str:
    """One value as the query language writes it."""
    if kinds.is_timestamp(kind):
        return _timestamp(at, value)
    if kinds.is_boolean(kind):
        return str(_checked(at, value, isinstance(value, bool), "true or false")).lower()
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        fits = isinstance(value, str) and "\0" not in value
        text = str(_checked(at, value, fits, "a text"))
        return "'" + text.replace("'", "''") + "'"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kinds.is_integer(kind):
        whole = number and isinstance(value, int) and _LEAST <= value <= _MOST
        return str(_checked(at, value, whole, "a whole number of 64 bits"))
    finite = number and math.isfinite(value)
    return repr(float(_checked(at, value, finite, "a finite number")))


def _checked(at: str, value: Any, fits: bool, wanted: str) -> Any:
    if not fits:
        raise InputError(f"{at}: {str(value)[:50]!r} is not {wanted}")
    return value


def _timestamp(at: str, value: Any) -> str:
    wanted = "a time as in 2026-01-31T12:00:00Z"
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise InputError(f"{at}: {value[:50]!r} is not {wanted}") from error
    _checked(at, value, isinstance(moment, datetime), wanted)
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    # Not `timestamp '…'`: Lance reads that in the column's own zone.
    return f"arrow_cast('{utc.isoformat(' ', 'microseconds')}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
