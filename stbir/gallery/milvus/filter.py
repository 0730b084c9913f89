"""A filter in Milvus's language. Its conditions are valid, as `stbir.gallery.filters` has checked them."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from stbir.gallery.filters import MICROS, Condition, Filter, Op, to_utc
from stbir.gallery.milvus.columns import Column
from stbir.storage.milvus_server import quoted

_OPERATORS: dict[Op, str] = {
    **{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "in": "in"},
}


def expression(filter: Filter, columns: Mapping[str, Column]) -> str:
    """The filter as an expression. As in Lance's, a null never matches."""
    return " and ".join(_render(condition, columns[condition.column]) for condition in filter.where)


def _render(condition: Condition, column: Column) -> str:
    kind, value = column.field.type, condition.value
    if condition.op == "in":
        literal = f"[{', '.join(_literal(each, kind) for each in value)}]"
    else:
        literal = _literal(value, kind)
    return f"{column.name} {_OPERATORS[condition.op]} {literal}"


def _literal(value: Any, kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return str(_in_units(to_utc("value", value), kind.unit))
    if pa.types.is_floating(kind):
        return repr(_stored(float(value), kind))
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value) if isinstance(value, str) else str(value)


def _stored(value: float, kind: pa.DataType) -> float:
    """The number that the column would hold; the value itself beyond its range, as Milvus has no infinity."""
    with np.errstate(over="ignore"):
        rounded = float(np.dtype(kind.to_pandas_dtype()).type(value))
    return rounded if math.isfinite(rounded) else value


def _in_units(time: datetime, unit: str) -> int:
    """A time as its column stores it; `filters` refuses one that is finer."""
    micros = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return micros * 1000 if unit == "ns" else micros // MICROS[unit]
