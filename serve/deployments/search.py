"""A group of queries over one gallery: those that ask for the same are searched for in one pass over it."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from serve.deadline import deadline_error, elapsed_ms
from serve.messages import Encoded, Found, Outcome, Query, Release, Vector
from stbir.errors import InputError
from stbir.gallery.gallery import Gallery
from stbir.model.fusion import Gate, fuse


@dataclass(frozen=True)
class Opened:
    """What a release is searched with."""

    release: Release
    gallery: Gallery
    gate: Gate | None


@dataclass(frozen=True)
class Fused:
    """A query as one vector (D,), and how long it took to get there."""

    query: Query
    vector: Vector
    timing_ms: dict[str, float]

    @property
    def count(self) -> int:
        """How many photos to find: a photo in place of a sketch would be the first of its own hits."""
        return self.query.k + (self.query.photo_id is not None)


def search(
    opened: Opened,
    sketches: Sequence[Outcome | None],
    texts: Sequence[Outcome | None],
    queries: Sequence[Query],
) -> list[Found | Exception]:
    """What each query found; what is wrong with one, of its parts too, stands in its place."""
    answers: list[Any] = [_fused(opened, *parts) for parts in zip(sketches, texts, queries, strict=True)]
    alike: dict[Any, list[int]] = defaultdict(list)
    for place, fused in enumerate(answers):
        if isinstance(fused, Fused):
            # A condition may hold a list, which is no key.
            alike[fused.count, fused.query.category, repr(fused.query.where)].append(place)
    for places in alike.values():
        found = _found(opened, [answers[place] for place in places])
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers


def _fused(opened: Opened, sketch: Outcome | None, text: Outcome | None, query: Query) -> Fused | Exception:
    if isinstance(sketch, Exception):
        return sketch
    if isinstance(text, Exception):
        return text
    if error := deadline_error(query.deadline):
        return error
    started, drawn, gate = time.perf_counter(), _row(sketch), opened.gate
    if query.photo_id is not None:
        # The gate knows sketches only.
        vector, gate = opened.gallery.vector(query.photo_id), None
        if vector is None:
            return InputError(f"photo_id: {query.photo_id!r} is not in the gallery")
        drawn = torch.from_numpy(vector.copy())[None]  # (1, D)
    with torch.inference_mode():
        [vector_D] = fuse(drawn, _row(text), query.sketch_weight, gate).numpy()
    timing = {name: took for part in (sketch, text) if part for name, took in part.timing_ms.items()}
    return Fused(query, vector_D, timing | {"fuse": elapsed_ms(started)})


def _found(opened: Opened, alike: Sequence[Fused]) -> Iterable[Found | Exception]:
    """Of queries that ask for as many photos, of the same category and under the same conditions."""
    started, query = time.perf_counter(), alike[0].query
    vectors_QD = np.stack([fused.vector for fused in alike])
    try:
        found = opened.gallery.search(vectors_QD, alike[0].count, query.category, query.where)
    except InputError as error:
        return [error] * len(alike)
    took = elapsed_ms(started)
    return [
        Found(
            [asdict(hit) for hit in hits if hit.photo_id != fused.query.photo_id][: fused.query.k],
            opened.release.digest,
            opened.gallery.version,
            fused.timing_ms | {"search": took},
        )
        for fused, hits in zip(alike, found, strict=True)
    ]


def _row(encoded: Encoded | None) -> torch.Tensor | None:
    return None if encoded is None else torch.from_numpy(encoded.vector.copy())[None]  # (1, D)
