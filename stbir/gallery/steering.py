"""Steered search: what hits should not show, photos marked as relevant or not, near-duplicates as one hit.

Each part wraps the ranking of the one before, and asks it for more rows until its own k best are certain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stbir.config.choices import NEGATIVE_WEIGHT
from stbir.errors import InputError
from stbir.gallery.arrays import Features, Indices
from stbir.gallery.filters import Condition, Filter
from stbir.gallery.gallery import Gallery
from stbir.gallery.ranking import Ranking, cosines, top_k
from stbir.gallery.rows import VectorArray
from stbir.gallery.search import Hit, to_hits

Rank = Callable[[int], Ranking]  # the k best rows; fewer only if there are no more

# Rocchio's weights in Manning, Raghavan and Schütze, Introduction to Information Retrieval (2008), 9.1.1.
RELEVANT_WEIGHT, NONRELEVANT_WEIGHT = 0.75, 0.15
MAX_DUPLICATES = 100  # ids that a hit lists; `count` counts all
_MARGIN, _GROWTH = 64, 4  # of the rows that a part asks for


@dataclass(frozen=True)
class Penalty:
    """What a hit should not show: a vector (D,) of any length, and its weight, at least 0."""

    vector: Features
    weight: float = NEGATIVE_WEIGHT


@dataclass(frozen=True)
class Steering:
    """How an answer is steered.

    penalties: lower the score of photos that resemble their vectors more than the gallery's mean does.
    like, unlike: ids of photos marked as relevant or not, which move the query; they are no hits.
    exclude: ids of other photos that are no hits. group: near-duplicates form one hit.
    """

    penalties: tuple[Penalty, ...] = ()
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    group: bool = False

    @property
    def changes_scores(self) -> bool:
        """Whether scores differ from those of the query alone."""
        return bool(self.penalties or self.like or self.unlike)

    def __bool__(self) -> bool:
        return self != Steering()


def search_steered(
    gallery: Gallery,
    vector: Features | None,
    k: int,
    steering: Steering,
    category: str | None = None,
    where: Sequence[Condition] = (),
) -> list[Hit]:
    """Up to k hits for a query vector (D,), best first. None: the query is the mean of the `like` photos.

    The score of a hit is its cosine with the moved query, less its penalties. Raises InputError as
    `Gallery.search`, for an unknown id, one in both `like` and `unlike`, and neither vector nor `like`.
    """
    if vector is None and not steering.like:
        raise InputError("query: empty; give a sketch, a text or `like`")
    _check_marks(steering)
    filter = gallery.make_filter(k, category, where)
    like, unlike, exclude = (
        _row_indices(gallery, name, getattr(steering, name)) for name in ("like", "unlike", "exclude")
    )
    if not gallery.count:
        return []
    start_1D = np.zeros((1, gallery.dim), np.float32) if vector is None else gallery.normalize(vector[None])
    query_D = move_query(start_1D[0], gallery.vectors[like], gallery.vectors[unlike])
    excluded = np.concatenate([like, unlike, exclude])
    rank = _nearest(gallery, gallery.normalize(query_D[None]), filter)
    rank = _without_rows(_penalized(rank, gallery, steering.penalties), excluded)
    if steering.group:
        return _grouped(gallery, rank, k, filter, excluded)
    return to_hits(gallery.rows, rank(k))


def move_query(query_D: Features, like_LD: Features, unlike_UD: Features) -> Features:
    """Rocchio's query (D,): towards the mean of relevant photos, away from that of the others."""
    for marked_MD, weight in ((like_LD, RELEVANT_WEIGHT), (unlike_UD, -NONRELEVANT_WEIGHT)):
        if len(marked_MD):
            query_D = query_D + weight * np.asarray(marked_MD).mean(axis=0)
    return query_D


def _check_marks(steering: Steering) -> None:
    for n, photo_id in enumerate(steering.unlike):
        if photo_id in steering.like:
            raise InputError(f"unlike.{n}: {photo_id!r} is in `like` too; leave it out of one of them")


def _row_indices(gallery: Gallery, field: str, photo_ids: Sequence[str]) -> Indices:
    """The row indices of photos, each once, so that a repeated mark counts once."""
    indices = [gallery.rows.index_of(photo_id) for photo_id in photo_ids]
    if None in indices:
        n = indices.index(None)
        raise InputError(f"{field}.{n}: {photo_ids[n]!r} is not in the gallery; leave it out")
    return np.unique(np.asarray(indices, np.int64))


def _nearest(gallery: Gallery, query_1D: Features, filter: Filter | None) -> Rank:
    def rank(k: int) -> Ranking:
        [ranking] = gallery.searcher.nearest(query_1D, min(k, gallery.count), filter)
        return ranking

    return rank


def _penalized(rank: Rank, gallery: Gallery, penalties: Sequence[Penalty]) -> Rank:
    """Subtracts weight x max(0, cosine - mean cosine of the gallery) for each penalty.

    A penalty only lowers a score. So once the k-th score exceeds the last one before penalties, no further
    row can be among the k best (Fagin et al., Optimal aggregation algorithms for middleware, 2003).
    """
    if not penalties:
        return rank
    penalty_PD = gallery.normalize(np.stack([penalty.vector for penalty in penalties]))
    weight_P = np.asarray([penalty.weight for penalty in penalties], np.float32)
    mean_P = penalty_PD @ gallery.statistics.mean

    def penalized(k: int) -> Ranking:
        num_rows = 2 * k + _MARGIN
        while True:
            ranking = rank(num_rows)
            excess_RP = np.maximum(0, gallery.vectors[ranking.indices] @ penalty_PD.T - mean_P)
            scores = np.asarray(ranking.scores - excess_RP @ weight_P, np.float32)
            best = Ranking(ranking.indices, scores).select(top_k(scores, k))
            if len(ranking) < num_rows or best.scores[-1] > ranking.scores[-1]:
                return best
            num_rows *= _GROWTH

    return penalized


def _without_rows(rank: Rank, excluded: Indices) -> Rank:
    def remaining(k: int) -> Ranking:
        ranking = rank(k + len(excluded))
        included = ranking.select(~np.isin(ranking.indices, excluded))
        return included.select(np.arange(min(k, len(included))))

    return remaining


def _grouped(gallery: Gallery, rank: Rank, k: int, filter: Filter | None, excluded: Indices) -> list[Hit]:
    """The k best photos that are no near-duplicate of a better one, each with its near-duplicates.

    A photo belongs to the best hit that it is a near-duplicate of.
    """
    cosine = gallery.statistics.duplicate_cosine
    representatives = _representatives(gallery.vectors, rank, k, cosine)
    taken = set(representatives.indices.tolist()) | set(excluded.tolist())
    hits = to_hits(gallery.rows, representatives)
    for n, found in enumerate(_near_duplicates(gallery, representatives.indices, cosine, filter)):
        duplicates = [row for row in found.tolist() if row not in taken]
        taken.update(duplicates)
        listed = np.asarray(duplicates[:MAX_DUPLICATES], np.int64)
        photo_ids = tuple(gallery.rows.ids(listed))
        hits[n] = replace(hits[n], count=1 + len(duplicates), duplicates=photo_ids)
    return hits


def _representatives(photo_ND: VectorArray, rank: Rank, k: int, cosine: float) -> Ranking:
    """The k best rows of which none is a near-duplicate of a better one."""
    num_rows = 2 * k + _MARGIN
    while True:
        ranking = rank(num_rows)
        chosen = _first_of_each_group(np.asarray(photo_ND[ranking.indices]), k, cosine)
        if len(chosen) == k or len(ranking) < num_rows:
            return ranking.select(chosen)
        num_rows *= _GROWTH


def _first_of_each_group(photo_RD: Features, k: int, cosine: float) -> Indices:
    """Positions of up to k vectors, in order, of which none is a near-duplicate of an earlier one."""
    chosen: list[int] = []
    rest = np.arange(len(photo_RD))
    while len(rest) and len(chosen) < k:
        chosen.append(int(rest[0]))
        rest = rest[cosines(photo_RD[rest], photo_RD[rest[0]]) < cosine]
    return np.asarray(chosen, np.int64)


def _near_duplicates(gallery: Gallery, rows: Indices, cosine: float, filter: Filter | None) -> list[Indices]:
    """For each row: all rows that match the filter and are its near-duplicates, nearest first."""
    photo_KD = np.asarray(gallery.vectors[rows])
    num_rows = _MARGIN
    while True:
        rankings = gallery.searcher.nearest(photo_KD, min(num_rows, gallery.count), filter)
        if all(len(each) < num_rows or each.scores[-1] < cosine for each in rankings):
            return [ranking.indices[ranking.scores >= cosine] for ranking in rankings]
        num_rows *= _GROWTH
