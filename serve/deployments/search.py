"""Search of a group of queries: those with equal filters and k share one pass over the gallery."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from serve.deadline import Deadline, elapsed_ms
from serve.deployments.item_results import item_error
from serve.messages import Encoded, EncodeResult, Query, Release, SearchResult, Vector
from stbir.errors import InputError
from stbir.gallery.gallery import Gallery
from stbir.model.fusion import Gate, fuse


@dataclass(frozen=True)
class LoadedRelease:
    """A release with its open gallery and its fusion gate."""

    release: Release
    gallery: Gallery
    gate: Gate | None


@dataclass(frozen=True)
class FusedQuery:
    """A query with its fused vector (D,), the time of the steps so far, and its deadline."""

    query: Query
    vector: Vector
    timing_ms: dict[str, float]
    deadline: Deadline

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
    """The hits of each query, or its error, which may be that of an encoder. `deadlines`: one a query."""
    parts = zip(sketches, texts, queries, deadlines, strict=True)
    results: list[Any] = [_fuse(loaded, *part) for part in parts]
    groups: dict[Any, list[int]] = defaultdict(list)
    for index, fused in enumerate(results):
        if isinstance(fused, FusedQuery):
            # `repr`, as a condition may hold a list, which is not hashable.
            groups[fused.num_hits, fused.query.category, repr(fused.query.where)].append(index)
    for indices in groups.values():
        group_results = _search_unexpired(loaded, [results[index] for index in indices])
        for index, result in zip(indices, group_results, strict=True):
            results[index] = result
    return results


def query_deadline(query: Query, sketch: EncodeResult | None, text: EncodeResult | None) -> Deadline:
    """The deadline of a query that has just arrived. Its budget was counted before the encoders began."""
    elapsed_s = max([0.0, *(part.elapsed_s for part in (sketch, text) if isinstance(part, Encoded))])
    return Deadline.after(query.budget_s - elapsed_s)


def _fuse(
    loaded: LoadedRelease,
    sketch: EncodeResult | None,
    text: EncodeResult | None,
    query: Query,
    deadline: Deadline,
) -> FusedQuery | Exception:
    if isinstance(sketch, Exception):
        return sketch
    if isinstance(text, Exception):
        return text
    if error := deadline.error():
        return error
    start, image_1D, gate = time.perf_counter(), _to_tensor(sketch), loaded.gate
    if query.photo_id is not None:
        # The gate is trained with sketches, not with photos.
        try:
            vector, gate = loaded.gallery.vector(query.photo_id), None
        except Exception as error:
            return item_error(error)
        if vector is None:
            return InputError(f"photo_id: {query.photo_id!r} is not in the gallery")
        image_1D = torch.from_numpy(vector.copy())[None]
    with torch.inference_mode():
        [vector_D] = fuse(image_1D, _to_tensor(text), query.sketch_weight, gate).numpy()
    timing_ms = {step: ms for part in (sketch, text) if part for step, ms in part.timing_ms.items()}
    return FusedQuery(query, vector_D, timing_ms | {"fuse": elapsed_ms(start)}, deadline)


def _search_unexpired(
    loaded: LoadedRelease, group: Sequence[FusedQuery]
) -> Iterable[SearchResult | Exception]:
    """Same as `_search_group`, but skips queries whose deadline passed while other groups were searched."""
    errors = [fused.deadline.error() for fused in group]
    active = [fused for fused, error in zip(group, errors, strict=True) if error is None]
    results = iter(_search_group(loaded, active) if active else ())
    return [error or next(results) for error in errors]


def _search_group(loaded: LoadedRelease, group: Sequence[FusedQuery]) -> Iterable[SearchResult | Exception]:
    """The hits of queries with equal `num_hits`, category and conditions."""
    start, query = time.perf_counter(), group[0].query
    vectors_QD = np.stack([fused.vector for fused in group])
    try:
        hits_of_queries = loaded.gallery.search(vectors_QD, group[0].num_hits, query.category, query.where)
    except Exception as error:
        return [item_error(error)] * len(group)
    search_ms = elapsed_ms(start)
    return [
        SearchResult(
            [asdict(hit) for hit in hits if hit.photo_id != fused.query.photo_id][: fused.query.k],
            loaded.release.digest,
            loaded.gallery.version,
            fused.timing_ms | {"search": search_ms},
        )
        for fused, hits in zip(group, hits_of_queries, strict=True)
    ]


def _to_tensor(encoded: Encoded | None) -> torch.Tensor | None:
    return None if encoded is None else torch.from_numpy(encoded.vector.copy())[None]  # (1, D)
