"""What photos must meet: a column of the gallery, a comparison, a value. The endpoint knows the columns."""

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self, get_args

from stbir_client.errors import InputError
from stbir_client.line import one_line

Op = Literal["eq", "ne", "lt", "le", "gt", "ge", "in"]
OPS: tuple[Op, ...] = get_args(Op)
Value = str | bool | int | float | datetime
_NAMES: dict[str, Op] = {
    **{"=": "eq", "==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"},
    "in": "in",
}
_FORM = "write COLUMN=VALUE (or != < <= > >=), or COLUMN in VALUE,VALUE"
_WRITTEN = re.compile(
    r"\s*(?P<column>.+?)(?:\s*(?P<sign>[<>=!]=|[<>=])|\s+(?P<word>in)\s)(?P<value>.*)", re.S
)
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_ITEM = re.compile(rf"\s*({_QUOTED}|[^,]*?)\s*(,|$)", re.S)
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Condition:
    """`column` `op` `value`; for `in` the value is a list of them. A photo without a value meets none."""

    column: str
    op: Op
    value: Value | Sequence[Value]

    @classmethod
    def read(cls, text: str) -> Self:
        """A condition as a person writes it: `price<30`, `shop in a,b`. Numbers, true and false are read as
        such; in quotes, as in `shop="7"`, they are text. Raises InputError."""
        written = _WRITTEN.fullmatch(text)
        if written is None:
            raise InputError(f"where: {_shown(text)} is no condition; {_FORM}")
        op = _NAMES[written["sign"] or written["word"]]
        if op == "in":
            return cls(written["column"], op, [_read(item, text) for item in _items(written["value"])])
        return cls(written["column"], op, _read(written["value"], text))


def as_json(where: Sequence[Condition]) -> list[dict[str, Any]]:
    """The conditions as the endpoint takes them. Raises InputError, naming `where.N` and its field."""
    return [_as_json(f"where.{place}", condition) for place, condition in enumerate(where)]


def _as_json(at: str, condition: Condition) -> dict[str, Any]:
    if not isinstance(condition, Condition):
        raise InputError(f"{at}: {_shown(condition)} is no Condition; Condition.read reads texts")
    if condition.op not in OPS:
        raise InputError(f"{at}.op: {_shown(condition.op)} is none of {', '.join(OPS)}")
    column = _text(f"{at}.column", condition.column)
    return {"column": column, "op": condition.op, "value": _value(f"{at}.value", condition)}


def _value(at: str, condition: Condition) -> Any:
    if condition.op != "in":
        return _plain(at, condition.value)
    if isinstance(condition.value, str | bytes | Mapping) or not isinstance(condition.value, Sequence):
        raise InputError(f"{at}: in takes a list, not {_shown(condition.value)}")
    if not condition.value:
        raise InputError(f"{at}: the list is empty; name a value")
    return [_plain(at, each) for each in condition.value]


def _plain(at: str, value: Any) -> str | bool | int | float:
    """One value as JSON has it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(at, value)
    if isinstance(value, datetime):
        return value.isoformat()
    try:
        number: int | float = value if isinstance(value, float) else operator.index(value)
    except TypeError as error:
        raise InputError(f"{at}: {_shown(value)} is no text, number, truth value or time") from error
    if not math.isfinite(number):
        raise InputError(f"{at}: {number} is not finite")
    return number


def _text(at: str, value: Any) -> str:
    try:
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError as error:
        raise InputError(f"{at}: has characters that are not Unicode text") from error
    raise InputError(f"{at}: {_shown(value)} is no text")


def _items(text: str) -> Iterator[str]:
    """What stands between the commas, those in quotes aside."""
    place, comma = 0, ","
    while comma:
        item = _ITEM.match(text, place)
        assert item is not None  # it matches at any place, at worst nothing
        yield item[1]
        place, comma = item.end(), item[2]


def _read(item: str, condition: str) -> str | bool | int | float:
    word = item.strip()
    if not word:
        raise InputError(f"where: {_shown(condition)} lacks a value; write '' for the empty text")
    if re.fullmatch(_QUOTED, word, re.S):
        return word[1:-1]
    if _WHOLE.fullmatch(word):
        return int(word)
    if _NUMBER.fullmatch(word):
        return float(word)
    return {"true": True, "false": False}.get(word.lower(), word)


def _shown(value: Any) -> str:
    return one_line(repr(value))[:80]
