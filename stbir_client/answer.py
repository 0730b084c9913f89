"""Typed answers of the endpoint. Invalid answers raise AnswerError; unknown fields are ignored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stbir_client.errors import AnswerError
from stbir_client.line import one_line

T = TypeVar("T")


@dataclass(frozen=True)
class Hit:
    """A photo of the search results.

    `score`: cosine similarity to the query, at most 1. `uri`: of its thumbnail. `text`: its text in the
    catalogue; None if it has none, or if the endpoint is of an older release. `count`: the photos that this
    hit stands for, itself included; `duplicates`: ids of up to 100 others. `match`: the probability that it
    is the photo meant; None if the endpoint does not know it.
    """

    photo_id: str
    score: float
    category: str
    uri: str
    text: str | None = None
    count: int = 1
    duplicates: tuple[str, ...] = ()
    match: float | None = None


@dataclass(frozen=True)
class Answer:
    """The hits of a search, best first, and the gallery version and checkpoint that produced them."""

    hits: tuple[Hit, ...]
    gallery_version: int
    checkpoint: str
    timing_ms: Mapping[str, float]
    request_id: str


@dataclass(frozen=True)
class Explanation:
    """What each part of a query contributed to the score of a photo; below 0 it lowered the score.

    score: cosine of sketch and text with the photo. cells: rows of cells of the sketch, from the top; None
    without a sketch. words: each word of the text in order, with its contribution.
    """

    score: float
    cells: tuple[tuple[float, ...], ...] | None
    words: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Gallery:
    """The published gallery. `count`: number of photos. `columns`: Arrow types of the columns for filters."""

    version: int
    count: int
    categories: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Info:
    """What an endpoint serves. `gallery`: None if none is published. `queries`: supported query fields."""

    model: Mapping[str, Any]
    gallery: Gallery | None
    limits: Mapping[str, Any]
    queries: tuple[str, ...]


def parse_answer(tree: Any, request_id: str) -> Answer:
    """Parse the JSON of `POST /v1/search`. Raises AnswerError."""
    return _parse("/v1/search", lambda: _answer(tree, request_id))


def parse_explanation(tree: Any) -> Explanation:
    """Parse the JSON of `POST /v1/explain`. Raises AnswerError."""
    return _parse("/v1/explain", lambda: _explanation(tree))


def parse_info(tree: Any) -> Info:
    """Parse the JSON of `GET /v1/info`. Raises AnswerError."""
    return _parse("/v1/info", lambda: _info(tree))


def _parse(path: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise AnswerError(f"{path}: not the answer of a stbir endpoint ({reason}); check the url") from error


def _answer(tree: Any, request_id: str) -> Answer:
    return Answer(
        hits=tuple(map(_hit, tree["hits"])),
        gallery_version=int(tree["gallery_version"]),
        checkpoint=_string(tree["checkpoint"]),
        timing_ms={name: float(value) for name, value in tree["timing_ms"].items()},
        request_id=request_id,
    )


def _hit(tree: Any) -> Hit:
    strings = {name: _string(tree[name]) for name in ("photo_id", "category", "uri")}
    text, duplicates = tree.get("text"), tuple(map(_string, tree.get("duplicates", ())))
    match = tree.get("match")
    return Hit(
        score=float(tree["score"]),
        text=None if text is None else _string(text),
        count=int(tree.get("count", 1)),
        duplicates=duplicates,
        match=None if match is None else float(match),
        **strings,
    )


def _explanation(tree: Any) -> Explanation:
    cells = None if tree["cells"] is None else tuple(tuple(map(float, row)) for row in tree["cells"])
    words = tuple((_string(word), float(contribution)) for word, contribution in tree["words"])
    return Explanation(float(tree["score"]), cells, words)


def _info(tree: Any) -> Info:
    gallery = tree["gallery"]
    return Info(
        model=dict(tree["model"]),
        gallery=None if gallery is None else _gallery(gallery),
        limits=dict(tree["limits"]),
        queries=tuple(map(_string, tree.get("queries", ("sketch", "text")))),
    )


def _gallery(tree: Any) -> Gallery:
    columns = {name: _string(arrow_type) for name, arrow_type in tree.get("columns", {}).items()}
    return Gallery(int(tree["version"]), int(tree["count"]), tuple(map(_string, tree["categories"])), columns)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value
