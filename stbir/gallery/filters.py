"""Typed conditions on gallery columns, rendered as a Lance filter. All parts of a condition are checked or
escaped, so that no user input is read as filter syntax."""

import contextlib
import difflib
import math
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import pyarrow as pa

from stbir.errors import InputError

Op = Literal["eq", "ne", "lt", "le", "gt", "ge", "in"]
ColumnType = Literal["boolean", "integer", "float", "string", "timestamp"]
_ALL_TYPES: frozenset[ColumnType] = frozenset(get_args(ColumnType))
_ORDERED_TYPES = _ALL_TYPES - {"boolean"}
_MAX_VALUES = 1000
_MIN_INT, _MAX_INT = 1 - 2**63, 2**63 - 1  # Lance cannot parse -2**63
MICROS = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1}  # the smallest step of a literal in a column's unit
_MAX_SUGGESTIONS, _MAX_COMPARED = 8, 1000  # a comparison takes about 20 µs
_MAX_EXCERPT = 50  # characters of a value in a message


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

    The value for a timestamp column is a `datetime` or ISO 8601 text, in UTC unless it has an offset, and no
    finer than the column.
    """

    column: str
    op: Op
    value: Any


@dataclass(frozen=True)
class Filter:
    """Valid conditions, their expression in Lance's language (`sql`), and the columns that they read."""

    sql: str
    columns: frozenset[str]
    where: tuple[Condition, ...]


def filterable_columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The columns that a condition may name, with their Arrow types."""
    return {field.name: field.type for field in schema if _column_type(field.type) and "`" not in field.name}


def render_filter(where: Sequence[Condition], schema: pa.Schema) -> Filter | None:
    """Combine conditions with AND; None if there are none. Raises InputError for one that does not fit the
    schema, naming `where.N.column`, `.op` or `.value`."""
    columns = filterable_columns(schema)
    terms = [_render(f"where.{n}", condition, columns) for n, condition in enumerate(where)]
    if not terms:
        return None
    return Filter(" AND ".join(terms), frozenset(each.column for each in where), tuple(where))


def suggest(name: str, choices: Collection[str]) -> str:
    """The choices most similar to `name` and their number, for a message: there may be thousands."""
    if len(choices) <= _MAX_SUGGESTIONS:
        return ", ".join(choices)
    candidates = [each for each in choices if each[:1].lower() == name[:1].lower()][:_MAX_COMPARED]
    closest = difflib.get_close_matches(name[:_MAX_EXCERPT], candidates, _MAX_SUGGESTIONS, cutoff=0.5)
    shown = [*closest, *sorted(set(choices) - set(closest))][:_MAX_SUGGESTIONS]
    return f"{', '.join(shown)}, … ({len(choices)} in all)"


def _column_type(data_type: pa.DataType) -> ColumnType | None:
    return next((name for name, is_type in _IS_TYPE.items() if is_type(data_type)), None)


def _render(path: str, condition: Condition, columns: dict[str, pa.DataType]) -> str:
    if condition.column not in columns:
        excerpt, available = _excerpt(condition.column), suggest(condition.column, columns)
        raise InputError(f"{path}.column: no column {excerpt}; available: {available}")
    op, value = condition.op, condition.value
    if op not in OPS:
        raise InputError(f"{path}.op: {_excerpt(op)} is not one of {', '.join(OPS)}")
    data_type = columns[condition.column]
    column_type = _column_type(data_type)
    if column_type not in OPS[op].types:
        allowed = ", ".join(name for name, operator in OPS.items() if column_type in operator.types)
        raise InputError(f"{path}.op: {op} does not apply to a {column_type} column; use one of {allowed}")
    if op != "in":
        literal = _literal(f"{path}.value", value, data_type)
    elif isinstance(value, list | tuple) and 1 <= len(value) <= _MAX_VALUES:
        literal = f"({', '.join(_literal(f'{path}.value', each, data_type) for each in value)})"
    else:
        raise InputError(f"{path}.value: in takes a list of 1 to {_MAX_VALUES} values")
    return f"`{condition.column}` {OPS[op].sql} {literal}"


def _literal(path: str, value: Any, data_type: pa.DataType) -> str:
    """A value in Lance's filter language. Raises InputError for a value that the column cannot hold."""
    match _column_type(data_type):
        case "timestamp":
            return _timestamp(path, value, data_type)
        case "boolean":
            return str(_require(isinstance(value, bool), path, value, "true or false")).lower()
        case "string":
            is_valid = isinstance(value, str) and "\0" not in value and _is_unicode(value)
            text = _require(is_valid, path, value, "valid Unicode text without NUL")
            return "'" + str(text).replace("'", "''") + "'"
        case "integer":
            return _integer(path, value, data_type)
    return _float(path, value, data_type)


def _integer(path: str, value: Any, data_type: pa.DataType) -> str:
    """Lance refuses the whole filter for a literal outside the range of the column's type."""
    bits, is_signed = data_type.bit_width, pa.types.is_signed_integer(data_type)
    low = max(_MIN_INT, -(2 ** (bits - 1)) if is_signed else 0)
    high = min(_MAX_INT, 2 ** (bits - is_signed) - 1)
    is_valid = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    return str(_require(is_valid, path, value, f"an integer from {low} to {high}"))


def _float(path: str, value: Any, data_type: pa.DataType) -> str:
    is_number, number = isinstance(value, int | float) and not isinstance(value, bool), math.nan
    with contextlib.suppress(OverflowError):  # an integer above 1.8e308, or a float16 above 65504
        number = _round(float(value), data_type) if is_number else number
    _require(math.isfinite(number), path, value, "a finite number that the column can hold")
    return repr(number)


def _round(value: float, data_type: pa.DataType) -> float:
    """The nearest value of the column's type: Lance refuses literals outside the range of float16."""
    if not pa.types.is_float16(data_type):
        return value
    [rounded] = struct.unpack("e", struct.pack("e", value))
    return float(rounded)


def _is_unicode(text: str) -> bool:
    """Whether a text can be encoded: JSON can hold half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require(is_valid: bool, path: str, value: Any, expected: str) -> Any:
    if not is_valid:
        raise InputError(f"{path}: {_excerpt(value)} is not {expected}")
    return value


def _excerpt(value: Any) -> str:
    """The start of a value. Python refuses to print an integer of more than 4300 digits."""
    try:
        return repr(str(value)[:_MAX_EXCERPT])
    except ValueError:
        return "a number of thousands of digits"


def _timestamp(path: str, value: Any, data_type: pa.DataType) -> str:
    time = to_utc(path, value)
    # Lance would truncate a finer time, and compare one beyond the range of nanoseconds with nothing.
    micros = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    is_exact = not micros % MICROS[data_type.unit]
    is_in_range = data_type.unit != "ns" or abs(micros) <= _MAX_INT // 1000
    _require(is_exact and is_in_range, path, value, f"a time that the column can hold ({data_type})")
    # Lance reads `timestamp '…'` in the time zone of the column, so the literal states its own.
    return f"arrow_cast('{time.isoformat(' ', 'microseconds')}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def to_utc(path: str, value: Any) -> datetime:
    """A datetime or ISO 8601 text in UTC. Raises InputError for another, and beyond the years 1 to 9999."""
    utc = None
    with contextlib.suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(time, datetime):
            utc = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    if utc is None:
        raise InputError(f"{path}: {_excerpt(value)} is not a timestamp such as 2026-01-31T12:00:00Z")
    return utc
