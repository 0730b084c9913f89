"""What the endpoint answers, typed. Anything else raises AnswerError; fields unknown here are let be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stbir_client.errors import AnswerError
from stbir_client.line import one_line

T = TypeVar("T")


@dataclass(frozen=True)
class Hit:
    """A photo that was found. `score`: its cosine to the query, at most 1. `uri`: of its thumbnail. `text`:
    what the catalogue says of it; None where it says nothing, or the service is an older one."""

    photo_id: str
    score: float
    category: str
    uri: str
    text: str | None = None


@dataclass(frozen=True)
class Answer:
    """The hits of a search, best first, and what they were found with."""

    hits: tuple[Hit, ...]
    gallery_version: int
    checkpoint: str
    timing_ms: Mapping[str, float]
    request_id: str


@dataclass(frozen=True)
class Gallery:
    """The published gallery. `count`: its photos. `columns`: what conditions may name, with the types."""

    version: int
    count: int
    categories: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Info:
    """What an endpoint serves. `gallery`: None while none is published. `queries`: what it searches by."""

    model: Mapping[str, Any]
    gallery: Gallery | None
    limits: Mapping[str, Any]
    queries: tuple[str, ...]


def read_answer(tree: Any, request_id: str) -> Answer:
    """The answer of `POST /v1/search`, from its JSON."""
    return _read("a search", lambda: _answer(tree, request_id))


def read_info(tree: Any) -> Info:
    """The answer of `GET /v1/info`, from its JSON."""
    return _read("/v1/info", lambda: _info(tree))


def _read(what: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise AnswerError(f"not the answer of a stbir endpoint to {what} ({reason}); see the url") from error


def _answer(tree: Any, request_id: str) -> Answer:
    return Answer(
        hits=tuple(map(_hit, tree["hits"])),
        gallery_version=int(tree["gallery_version"]),
        checkpoint=_text(tree["checkpoint"]),
        timing_ms={name: float(value) for name, value in tree["timing_ms"].items()},
        request_id=request_id,
    )


def _hit(tree: Any) -> Hit:
    texts = {name: _text(tree[name]) for name in ("photo_id", "category", "uri")}
    said = tree.get("text")
    return Hit(score=float(tree["score"]), text=None if said is None else _text(said), **texts)


def _info(tree: Any) -> Info:
    gallery = tree["gallery"]
    return Info(
        model=dict(tree["model"]),
        gallery=None if gallery is None else _gallery(gallery),
        limits=dict(tree["limits"]),
        queries=tuple(map(_text, tree.get("queries", ("sketch", "text")))),
    )


def _gallery(tree: Any) -> Gallery:
    columns = {name: _text(kind) for name, kind in tree.get("columns", {}).items()}
    return Gallery(int(tree["version"]), int(tree["count"]), tuple(map(_text, tree["categories"])), columns)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
