"""Filters on gallery columns: column, operator, value. The endpoint checks them against its schema."""

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self, get_args

from stbir_client.errors import InputError
from stbir_client.line import one_line

Op = Literal["eq", "ne", "lt", "le", "gt", "ge", "in"]  # a test compares them with the server's
OPS: tuple[Op, ...] = get_args(Op)
Value = str | bool | int | float | datetime
SYMBOLS: dict[str, Op] = {
    **{"=": "eq", "==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"},
    "in": "in",
}
_USAGE = "write COLUMN=VALUE (or != < <= > >=), or COLUMN in VALUE,VALUE"
_FILTER = re.compile(r"\s*(?P<column>.+?)(?:\s*(?P<sign>[<>=!]=|[<>=])|\s+(?P<word>in)\s)(?P<value>.*)", re.S)
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_ITEM = re.compile(rf"\s*({_QUOTED}|[^,]*?)\s*(,|$)", re.S)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Condition:
    """`column` `op` `value`; `in` takes a list of values. A photo without a value never matches."""

    column: str
    op: Op
    value: Value | Sequence[Value]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `price<30` or `shop in a,b`. Raises InputError.

        Numbers, true and false are parsed as such; in quotes, as in `shop="7"`, they are text.
        """
        match = _FILTER.fullmatch(text)
        if match is None:
            raise InputError(f"where: {_excerpt(text)} is not a filter; {_USAGE}")
        op = SYMBOLS[match["sign"] or match["word"]]
        if op == "in":
            return cls(match["column"], op, [_parse_value(item, text) for item in _split(match["value"])])
        return cls(match["column"], op, _parse_value(match["value"], text))


def to_json(where: Sequence[Condition]) -> list[dict[str, Any]]:
    """The filters in the format of the API. Raises InputError, naming `where.N` and its field."""
    return [_to_json(f"where.{n}", each) for n, each in enumerate(where)]


def _to_json(path: str, each: Condition) -> dict[str, Any]:
    if not isinstance(each, Condition):
        raise InputError(f"{path}: {_excerpt(each)} is not a Condition; use Condition.parse for text")
    if each.op not in OPS:
        raise InputError(f"{path}.op: {_excerpt(each.op)} is not one of {', '.join(OPS)}")
    column = check_text(f"{path}.column", each.column)
    return {"column": column, "op": each.op, "value": _value(f"{path}.value", each)}


def _value(path: str, each: Condition) -> Any:
    if each.op != "in":
        return _scalar(path, each.value)
    if isinstance(each.value, str | bytes | Mapping) or not isinstance(each.value, Sequence):
        raise InputError(f"{path}: in takes a list, not {_excerpt(each.value)}")
    if not each.value:
        raise InputError(f"{path}: the list is empty; give at least one value")
    return [_scalar(path, item) for item in each.value]


def _scalar(path: str, value: Any) -> str | bool | int | float:
    """A single value as JSON."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(path, value)
    if isinstance(value, datetime):
        return value.isoformat()
    try:
        number: int | float = value if isinstance(value, float) else operator.index(value)
    except TypeError as error:
        raise InputError(f"{path}: {_excerpt(value)} is not a text, number, boolean or datetime") from error
    if not math.isfinite(number):
        raise InputError(f"{path}: {number} is not finite")
    return number


def check_text(path: str, value: Any) -> str:
    """The value if it is valid Unicode text. Raises InputError.

    Shell arguments that are not UTF-8 contain lone surrogates, which cannot be encoded.
    """
    if not isinstance(value, str):
        raise InputError(f"{path}: {_excerpt(value)} is not a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: contains characters that are not valid Unicode") from error
    return value


def _split(text: str) -> Iterator[str]:
    """The items between commas. A comma in quotes does not separate."""
    position, comma = 0, ","
    while comma:
        item = _ITEM.match(text, position)
        assert item is not None  # the pattern matches the empty string at any position
        yield item[1]
        position, comma = item.end(), item[2]


def _parse_value(item: str, text: str) -> str | bool | int | float:
    value = item.strip()
    if not value:
        raise InputError(f"where: {_excerpt(text)} has no value; write '' for an empty text")
    if re.fullmatch(_QUOTED, value, re.S):
        return value[1:-1]
    if _INTEGER.fullmatch(value):
        return int(value)
    if _FLOAT.fullmatch(value):
        return float(value)
    return {"true": True, "false": False}.get(value.lower(), value)


def _excerpt(value: Any) -> str:
    return one_line(repr(value))[:80]
