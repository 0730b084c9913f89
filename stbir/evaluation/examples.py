"""Example queries with their search results for the report page."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from stbir.augmentation.query_corruption import LEVELS, Level, corrupt_row
from stbir.data.schema import Row
from stbir.embedding.queries import NO_SKETCH, QueryKind
from stbir.evaluation.evaluate import Evaluation
from stbir.evaluation.ranking import Ranking
from stbir.gallery.arrays import Indices
from stbir.gallery.thumbnail import thumbnail

NUM_EXAMPLES = 6
NUM_CORRUPTION_EXAMPLES = 3
IMAGE_SIDE = 320  # pixels: sharp in a tile on a dense screen, and enlarged; about 10 kB an image
_KINDS: tuple[QueryKind, ...] = ("sketch+text", "sketch", "text")  # by preference


@dataclass(frozen=True)
class Hit:
    """A photo among the results, as a data URI."""

    uri: str
    photo_id: str
    is_target: bool


@dataclass(frozen=True)
class Example:
    """A query and its first results. `missed` is the target photo if it is not among them.

    `ranks` are the ranks of the target photo for each kind of query; `rank` is that of this query.
    """

    sketch: str | None
    text: str | None
    hits: list[Hit]
    missed: Hit | None
    ranks: dict[QueryKind, int]
    rank: int


@dataclass(frozen=True)
class CorruptedQuery:
    """A sketch, as a data URI, and a caption at one of LEVELS."""

    level: Level
    sketch: str
    text: str


def corruption_examples(
    rows: Iterable[Row], seed: int, count: int = NUM_CORRUPTION_EXAMPLES
) -> list[list[CorruptedQuery]]:
    """First sketch and caption, at each of LEVELS, of the first rows that have both."""
    complete = islice((row for row in rows if row["sketches"] and row["text"]), count)
    return [[_corrupted_query(row, level, seed) for level in LEVELS] for row in complete]


def _corrupted_query(row: Row, level: Level, seed: int) -> CorruptedQuery:
    corrupted = corrupt_row(row, LEVELS[level], seed)
    return CorruptedQuery(level, data_uri(corrupted["sketches"][0]), corrupted["text"] or "")


def examples(evaluation: Evaluation, rows: Iterable[Row], count: int = NUM_EXAMPLES) -> list[Example]:
    """Up to `count` queries of rank 1, then up to `count` others, by ascending rank.

    The selection is deterministic: spread evenly over the ranks, one query per photo. `rows` are those
    of the evaluation, read again for the images.
    """
    kind = next((kind for kind in _KINDS if len(evaluation.rankings[kind].ranks_Q)), None)
    if kind is None:
        return []
    ranking = evaluation.rankings[kind]
    selected = _select(ranking, count)
    photos = {int(i) for q in selected for i in (ranking.target_Q[q], *ranking.top_QK[q])}
    photo_ids = {evaluation.photo_ids[i] for i in photos}
    row_of = {row["photo_id"]: row for row in rows if row["photo_id"] in photo_ids}
    return [_example(evaluation, kind, q, row_of) for q in selected]


def _select(ranking: Ranking, count: int) -> list[int]:
    by_rank = np.argsort(ranking.ranks_Q, kind="stable")
    top_1 = [int(q) for q in by_rank if ranking.ranks_Q[q] == 1]
    others = [int(q) for q in by_rank if ranking.ranks_Q[q] > 1]
    return [q for group in (top_1, others) for q in _spread(_one_per_photo(group, ranking.target_Q), count)]


def _one_per_photo(queries: list[int], target_Q: Indices) -> list[int]:
    query_of: dict[int, int] = {}
    for q in queries:
        query_of.setdefault(int(target_Q[q]), q)
    return list(query_of.values())


def _spread(queries: list[int], count: int) -> list[int]:
    if len(queries) <= count:
        return queries
    return [queries[round(i)] for i in np.linspace(0, len(queries) - 1, count)]


def _example(evaluation: Evaluation, kind: QueryKind, q: int, row_of: dict[str, Row]) -> Example:
    ranking = evaluation.rankings[kind]
    target, sketch = int(ranking.target_Q[q]), int(ranking.sketch_Q[q])
    row = row_of[evaluation.photo_ids[target]]

    def hit(i: int) -> Hit:
        photo_id = evaluation.photo_ids[i]
        return Hit(data_uri(row_of[photo_id]["photo"]), photo_id, i == target)

    hits = [hit(int(i)) for i in ranking.top_QK[q]]
    return Example(
        data_uri(row["sketches"][0 if sketch == NO_SKETCH else sketch]) if kind != "text" else None,
        row["text"] if kind != "sketch" else None,
        hits,
        None if any(each.is_target for each in hits) else hit(target),
        _ranks(evaluation, target, sketch),
        int(ranking.ranks_Q[q]),
    )


def _ranks(evaluation: Evaluation, target: int, sketch: int) -> dict[QueryKind, int]:
    """Rank of the target photo for each kind of query, with the same sketch."""
    ranks: dict[QueryKind, int] = {}
    for kind, ranking in evaluation.rankings.items():
        same = (ranking.target_Q == target) & np.isin(ranking.sketch_Q, (sketch, NO_SKETCH))
        if same.any():
            ranks[kind] = int(ranking.ranks_Q[same][0])
    return ranks


def data_uri(image: bytes) -> str:
    """An encoded image as a data URI, reduced to IMAGE_SIDE."""
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail(image, IMAGE_SIDE)).decode()
