"""Some queries with what they found, for a person to look at: successes and failures."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from stbir.augmentation.query_corruption import LEVELS, Level, distorted
from stbir.data.schema import Row
from stbir.embedding.queries import NO_SKETCH, QueryKind
from stbir.evaluation.evaluate import Evaluation, Ranking
from stbir.gallery.arrays import Index
from stbir.gallery.thumbnail import thumbnail

EACH = 6
SHOWN_DISTORTED = 3
_KINDS: tuple[QueryKind, ...] = ("sketch+text", "sketch", "text")  # the first that was asked is shown


@dataclass(frozen=True)
class Picture:
    """A photo on the page: `uri` is a data URI."""

    uri: str
    photo_id: str
    right: bool


@dataclass(frozen=True)
class Example:
    """A query and its first photos; `beyond` is the right one where it is not among them.

    `ranks`: of the right photo, for each kind of query about it that was asked.
    """

    sketch: str | None
    words: str | None
    found: list[Picture]
    beyond: Picture | None
    ranks: dict[QueryKind, int]
    rank: int


@dataclass(frozen=True)
class Poor:
    """A query at one of LEVELS: its sketch as a data URI, and its caption."""

    level: Level
    sketch: str
    words: str


def distorted_examples(rows: Iterable[Row], seed: int, count: int = SHOWN_DISTORTED) -> list[list[Poor]]:
    """The first sketch and the caption of the first rows that have both, at each of LEVELS."""
    whole = islice((row for row in rows if row["sketches"] and row["text"]), count)
    return [[_poor(row, level, seed) for level in LEVELS] for row in whole]


def _poor(row: Row, level: Level, seed: int) -> Poor:
    poor = distorted(row, LEVELS[level], seed)
    return Poor(level, data_uri(poor["sketches"][0]), poor["text"] or "")


def examples(evaluation: Evaluation, rows: Iterable[Row], each: int = EACH) -> list[Example]:
    """Up to `each` queries that found their photo first, then as many that did not, worst last.

    Spread evenly over all such queries, one a photo: the same evaluation shows the same ones. `rows` are
    those of the evaluation, read once more for the few pictures that are shown.
    """
    kind = next((kind for kind in _KINDS if len(evaluation.rankings[kind].ranks_Q)), None)
    if kind is None:
        return []
    ranking = evaluation.rankings[kind]
    chosen = _choose(ranking, each)
    photos = {int(i) for q in chosen for i in (ranking.right_Q[q], *ranking.top_QK[q])}
    wanted = {evaluation.photo_ids[i] for i in photos}
    shown = {row["photo_id"]: row for row in rows if row["photo_id"] in wanted}
    return [_example(evaluation, kind, q, shown) for q in chosen]


def _choose(ranking: Ranking, each: int) -> list[int]:
    by_rank = np.argsort(ranking.ranks_Q, kind="stable")
    good = [int(q) for q in by_rank if ranking.ranks_Q[q] == 1]
    bad = [int(q) for q in by_rank if ranking.ranks_Q[q] > 1]
    return [
        *_spread(_one_a_photo(good, ranking.right_Q), each),
        *_spread(_one_a_photo(bad, ranking.right_Q), each),
    ]


def _one_a_photo(queries: list[int], right_Q: Index) -> list[int]:
    first: dict[int, int] = {}
    for q in queries:
        first.setdefault(int(right_Q[q]), q)
    return list(first.values())


def _spread(queries: list[int], count: int) -> list[int]:
    if len(queries) <= count:
        return queries
    return [queries[round(i)] for i in np.linspace(0, len(queries) - 1, count)]


def _example(evaluation: Evaluation, kind: QueryKind, q: int, shown: dict[str, Row]) -> Example:
    ranking = evaluation.rankings[kind]
    right, rank = int(ranking.right_Q[q]), int(ranking.ranks_Q[q])
    row = shown[evaluation.photo_ids[right]]

    def picture(i: int) -> Picture:
        photo_id = evaluation.photo_ids[i]
        return Picture(data_uri(shown[photo_id]["photo"]), photo_id, i == right)

    found = [picture(int(i)) for i in ranking.top_QK[q]]
    sketch = _sketch(row, int(ranking.sketch_Q[q])) if kind != "text" else None
    return Example(
        data_uri(sketch) if sketch is not None else None,
        row["text"] if kind != "sketch" else None,
        found,
        None if any(each.right for each in found) else picture(right),
        _ranks(evaluation, right, int(ranking.sketch_Q[q])),
        rank,
    )


def _sketch(row: Row, number: int) -> bytes:
    return row["sketches"][0 if number == NO_SKETCH else number]


def _ranks(evaluation: Evaluation, right: int, sketch: int) -> dict[QueryKind, int]:
    """The rank each kind of query gave the photo, with the same sketch where one was used."""
    ranks: dict[QueryKind, int] = {}
    for kind, ranking in evaluation.rankings.items():
        same = (ranking.right_Q == right) & np.isin(ranking.sketch_Q, (sketch, NO_SKETCH))
        if same.any():
            ranks[kind] = int(ranking.ranks_Q[same][0])
    return ranks


def data_uri(picture: bytes) -> str:
    """A small copy of an encoded picture, written into the page itself."""
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail(picture, side=128)).decode()
