"""Typed conditions on gallery columns, rendered as a Lance filter. All parts of a condition are checked or
escaped, so that no user input is read as filter syntax."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import pyarrow as pa

from stbir.errors import InputError

Op = Literal["eq", "ne", "lt", "le", "gt", "ge", "in"]
ColumnType = Literal["boolean", "integer", "float", "string", "timestamp"]
_ALL_TYPES: frozenset[ColumnType] = frozenset(get_args(ColumnType))
_ORDERED_TYPES = _ALL_TYPES - {"boolean"}
_MAX_VALUES = 1000
_MIN_INT, _MAX_INT = 1 - 2**63, 2**63 - 1  # Lance cannot parse -2**63


@dataclass(frozen=True)
class Operator:
    """`sql`: the operator in Lance's filter language. `types`: the column types that accept it."""

    sql: str
    types: frozenset[ColumnType]


# The same operators as in stbir_client/filters.py and serve/web/filter_schema.js.
OPS: dict[Op, Operator] = {
    "eq": Operator("=", _ALL_TYPES),
    "ne": Operator("!=", _ALL_TYPES),
    "lt": Operator("<", _ORDERED_TYPES),
    "le": Operator("<=", _ORDERED_TYPES),
    "gt": Operator(">", _ORDERED_TYPES),
    "ge": Operator(">=", _ORDERED_TYPES),
    "in": Operator("IN", _ALL_TYPES),
}
_IS_TYPE: dict[ColumnType, Callable[[pa.DataType], bool]] = {
    "boolean": pa.types.is_boolean,
    "integer": pa.types.is_integer,
    "float": pa.types.is_floating,
    "string": lambda data_type: pa.types.is_string(data_type) or pa.types.is_large_string(data_type),
    "timestamp": pa.types.is_timestamp,
}


@dataclass(frozen=True)
class Condition:
    """`column` `op` `value`; `in` takes a list of values. A null in the column never matches.

    The value for a timestamp column is a `datetime` or ISO 8601 text, in UTC unless it has an offset.
    """

    column: str
    op: Op
    value: Any


@dataclass(frozen=True)
class Filter:
    """A filter expression of Lance (`sql`) and the columns that it reads."""

    sql: str
    columns: frozenset[str]


def filterable_columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The columns that a condition may name, with their Arrow types."""
    return {field.name: field.type for field in schema if _column_type(field.type) and "`" not in field.name}


def render_filter(where: Sequence[Condition], schema: pa.Schema) -> Filter | None:
    """Combine conditions with AND; None if there are none. Raises InputError for one that does not fit the
    schema, naming `where.N.column`, `.op` or `.value`."""
    columns = filterable_columns(schema)
    terms = [_render(f"where.{n}", condition, columns) for n, condition in enumerate(where)]
    return Filter(" AND ".join(terms), frozenset(each.column for each in where)) if terms else None


def _column_type(data_type: pa.DataType) -> ColumnType | None:
    return next((name for name, is_type in _IS_TYPE.items() if is_type(data_type)), None)


def _render(path: str, condition: Condition, columns: dict[str, pa.DataType]) -> str:
    if condition.column not in columns:
        raise InputError(f"{path}.column: no column {condition.column!r}; available: {', '.join(columns)}")
    op, value = condition.op, condition.value
    if op not in OPS:
        raise InputError(f"{path}.op: {op!r} is not one of {', '.join(OPS)}")
    column_type = _column_type(columns[condition.column])
    if column_type not in OPS[op].types:
        allowed = ", ".join(name for name, operator in OPS.items() if column_type in operator.types)
        raise InputError(f"{path}.op: {op} does not apply to a {column_type} column; use one of {allowed}")
    if op != "in":
        literal = _literal(f"{path}.value", value, column_type)
    elif isinstance(value, list | tuple) and 1 <= len(value) <= _MAX_VALUES:
        literal = f"({', '.join(_literal(f'{path}.value', each, column_type) for each in value)})"
    else:
        raise InputError(f"{path}.value: in takes a list of 1 to {_MAX_VALUES} values")
    return f"`{condition.column}` {OPS[op].sql} {literal}"


def _literal(path: str, value: Any, column_type: ColumnType | None) -> str:
    """A value in Lance's filter language. Raises InputError for a value of another type."""
    if column_type == "timestamp":
        return _timestamp(path, value)
    if column_type == "boolean":
        return str(_require(isinstance(value, bool), path, value, "true or false")).lower()
    if column_type == "string":
        text = _require(isinstance(value, str) and "\0" not in value, path, value, "text without NUL")
        return "'" + str(text).replace("'", "''") + "'"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if column_type == "integer":
        is_int64 = is_number and isinstance(value, int) and _MIN_INT <= value <= _MAX_INT
        return str(_require(is_int64, path, value, "a 64-bit integer"))
    return repr(float(_require(is_number and math.isfinite(value), path, value, "a finite number")))


def _require(is_valid: bool, path: str, value: Any, expected: str) -> Any:
    if not is_valid:
        raise InputError(f"{path}: {str(value)[:50]!r} is not {expected}")
    return value


def _timestamp(path: str, value: Any) -> str:
    time = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            time = datetime.fromisoformat(value)
    _require(isinstance(time, datetime), path, value, "a timestamp such as 2026-01-31T12:00:00Z")
    utc = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    # Lance reads `timestamp '…'` in the time zone of the column, so the literal states its own.
    return f"arrow_cast('{utc.isoformat(' ', 'microseconds')}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
