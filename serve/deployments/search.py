"""Search of a group of queries: those with equal filters and k share one pass over the gallery.

A steered query (`stbir.gallery.steering`) is searched by itself.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from serve.deadline import Deadline, elapsed_ms
from serve.deployments.item_results import item_error
from serve.messages import Encoded, EncodeResult, Query, Release, SearchResult, Vector
from stbir.embedding.embed import fuse_vectors
from stbir.embedding.match_probability import MatchCurve, choose_curve, with_matches
from stbir.errors import InputError
from stbir.gallery.gallery import Gallery
from stbir.gallery.search import Hit
from stbir.gallery.steering import Penalty, Steering, search_steered
from stbir.model.fusion import Gate


@dataclass(frozen=True)
class LoadedRelease:
    """A release with its open gallery and its fusion gate."""

    release: Release
    gallery: Gallery
    gate: Gate | None
    match_curves: Mapping[str, MatchCurve] = field(default_factory=dict)

    def curve(self, fused: "FusedQuery") -> MatchCurve | None:
        """The probability of a match by score; None where it was not measured."""
        query, is_steered = fused.query, fused.steering.changes_scores
        return choose_curve(self.match_curves, fused.kind, query.sketch_weight, is_steered)


EncodedPair = tuple[EncodeResult | None, EncodeResult | None]  # of the sketch and of the text


@dataclass(frozen=True)
class FusedQuery:
    """A query with its fused vector (D,), the time of the steps so far, its deadline and its steering.

    `kind`: its modalities, as "sketch+text". The vector is None if the query has only `like`.
    """

    query: Query
    kind: str
    vector: Vector | None
    timing_ms: dict[str, float]
    deadline: Deadline
    steering: Steering

    @property
    def num_hits(self) -> int:
        """k, plus one for the photo of a `photo_id`, which would be its own first hit."""
        return self.query.k + (self.query.photo_id is not None)


def search(
    loaded: LoadedRelease,
    sketches: Sequence[EncodeResult | None],
    texts: Sequence[EncodeResult | None],
    queries: Sequence[Query],
    deadlines: Sequence[Deadline],
) -> list[SearchResult | Exception]:
    """The hits of each query, or its error, which may be that of an encoder. `deadlines`: one a query.

    `sketches` and `texts` are those of each query and of its negatives (`pairs_of`).
    """
    parts = zip(pairs_of(queries, sketches, texts), queries, deadlines, strict=True)
    results: list[Any] = [_fuse_or_error(loaded, *part) for part in parts]
    groups: dict[Any, list[int]] = defaultdict(list)
    for index, fused in enumerate(results):
        if isinstance(fused, FusedQuery):
            # `repr`, as a condition may hold a list, which is not hashable.
            shared = fused.num_hits, fused.query.category, repr(fused.query.where)
            groups[index if fused.steering else shared].append(index)
    for indices in groups.values():
        group_results = _search_unexpired(loaded, [results[index] for index in indices])
        for index, result in zip(indices, group_results, strict=True):
            results[index] = result
    return results


def pairs_of(
    queries: Sequence[Query],
    sketches: Sequence[EncodeResult | None],
    texts: Sequence[EncodeResult | None],
) -> list[list[EncodedPair]]:
    """The encoded pairs of each query: its own, then those of its negatives, as the ingress sends them."""
    pairs = zip(sketches, texts, strict=True)
    return [list(islice(pairs, 1 + len(query.without))) for query in queries]


def query_deadline(query: Query, *parts: EncodeResult | None) -> Deadline:
    """The deadline of a query that has just arrived. Its budget was counted before the encoders began."""
    elapsed_s = max([0.0, *(part.elapsed_s for part in parts if isinstance(part, Encoded))])
    return Deadline.after(query.budget_s - elapsed_s)


def _fuse_or_error(
    loaded: LoadedRelease, pairs: Sequence[EncodedPair], query: Query, deadline: Deadline
) -> FusedQuery | Exception:
    if error := _first_error(pairs) or deadline.error():
        return error
    try:
        return _fuse(loaded, pairs, query, deadline)
    except Exception as error:
        return item_error(error)


def _first_error(pairs: Sequence[EncodedPair]) -> Exception | None:
    """The first error of an encoder; that of a negative names it, as "without.0.sketch: …"."""
    for n, part in ((n, part) for n, pair in enumerate(pairs) for part in pair):
        if isinstance(part, InputError) and n > 0:
            return type(part)(f"without.{n - 1}.{part}")
        if isinstance(part, Exception):
            return part
    return None


def _fuse(loaded: LoadedRelease, pairs: Sequence[Any], query: Query, deadline: Deadline) -> FusedQuery:
    """Raises InputError for a photo that is not in the gallery."""
    start, [(sketch, text), *negatives] = time.perf_counter(), pairs
    penalties = zip(negatives, query.without, strict=True)
    steering = Steering(
        tuple(Penalty(_fuse_pair(loaded, *pair), negative.weight) for pair, negative in penalties),
        query.like,
        query.unlike,
        group=query.group,
    )
    if steering and query.photo_id is not None:
        steering = replace(steering, exclude=(query.photo_id,))
    vector = _query_vector(loaded, sketch, text, query)
    timing_ms = {step: ms for part in chain(*pairs[::-1]) if part for step, ms in part.timing_ms.items()}
    parts = {"photo": query.photo_id, "sketch": sketch, "text": text}
    kind = "+".join(name for name, part in parts.items() if part is not None)
    return FusedQuery(query, kind, vector, timing_ms | {"fuse": elapsed_ms(start)}, deadline, steering)


def _query_vector(
    loaded: LoadedRelease, sketch: Encoded | None, text: Encoded | None, query: Query
) -> Vector | None:
    """The vector (D,) of a query before its steering; None without sketch, text and photo."""
    if query.photo_id is not None:
        vector = loaded.gallery.vector(query.photo_id)
        if vector is None:
            raise InputError(f"photo_id: {query.photo_id!r} is not in the gallery")
        # The gate is trained with sketches, not with photos.
        return _fuse_pair(replace(loaded, gate=None), Encoded(vector, {}), text, query.sketch_weight)
    if sketch is None and text is None:
        return None
    return _fuse_pair(loaded, sketch, text, query.sketch_weight)


def _fuse_pair(
    loaded: LoadedRelease, image: Encoded | None, text: Encoded | None, sketch_weight: float = 0.5
) -> Vector:
    image_1D, text_1D = (None if each is None else each.vector[None] for each in (image, text))
    [vector_D] = fuse_vectors(image_1D, text_1D, sketch_weight, loaded.gate)
    return np.asarray(vector_D)


def _search_unexpired(
    loaded: LoadedRelease, group: Sequence[FusedQuery]
) -> Iterable[SearchResult | Exception]:
    """Same as `_search_group`, but skips queries whose deadline passed while other groups were searched."""
    errors = [fused.deadline.error() for fused in group]
    active = [fused for fused, error in zip(group, errors, strict=True) if error is None]
    results = iter(_search_group(loaded, active) if active else ())
    return [error or next(results) for error in errors]


def _search_group(loaded: LoadedRelease, group: Sequence[FusedQuery]) -> Iterable[SearchResult | Exception]:
    """The hits of one steered query, or of queries with equal `num_hits`, category and conditions."""
    start = time.perf_counter()
    try:
        hits_of_queries = _search_gallery(loaded.gallery, group)
    except Exception as error:
        return [item_error(error)] * len(group)
    search_ms = elapsed_ms(start)
    return [
        _result(loaded, fused, hits, search_ms) for fused, hits in zip(group, hits_of_queries, strict=True)
    ]


def _result(
    loaded: LoadedRelease, fused: FusedQuery, hits: Sequence[Hit], search_ms: float
) -> SearchResult | Exception:
    query = fused.query
    others = [hit for hit in hits if hit.photo_id != query.photo_id][: query.k]
    try:
        matches = with_matches(others, loaded.curve(fused), query.min_match)
    except InputError as error:
        return error
    timing_ms = fused.timing_ms | {"search": search_ms}
    return SearchResult([*map(asdict, matches)], loaded.release.digest, loaded.gallery.version, timing_ms)


def _search_gallery(gallery: Gallery, group: Sequence[FusedQuery]) -> list[list[Hit]]:
    first, query = group[0], group[0].query
    if first.steering:
        steered = search_steered(gallery, first.vector, query.k, first.steering, query.category, query.where)
        return [steered]
    vectors_QD = np.stack([fused.vector for fused in group if fused.vector is not None])
    return gallery.search(vectors_QD, first.num_hits, query.category, query.where)
