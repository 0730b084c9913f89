"""Sketch, text and sketch+text queries from the rows of a split, embedded (docs/method.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, get_args

import numpy as np

from stbir.config.choices import Protocol
from stbir.data.schema import Row
from stbir.embedding.embed import BATCH, embed_photos, embed_sketches, embed_texts, fuse_vectors
from stbir.errors import InputError
from stbir.gallery.arrays import Features, Indices
from stbir.model.fusion import Gate
from stbir.model.retriever import Retriever

QueryKind = Literal["sketch", "text", "sketch+text"]
QUERY_KINDS: tuple[QueryKind, ...] = get_args(QueryKind)
NO_SKETCH = -1


@dataclass(frozen=True)
class SplitFeatures:
    """Features of photos, sketches and captions, and the photo index of each sketch and caption."""

    photo_ids: list[str]
    categories: list[str]
    photo_ND: Features
    sketch_SD: Features
    sketch_photo_S: Indices  # ascending
    text_TD: Features
    text_photo_T: Indices  # ascending
    gate: Gate | None = None  # the model's fusion gate


@dataclass(frozen=True)
class Queries:
    """Query vectors (Q, D), their target photos (Q,), and the number of the query's sketch (Q,).

    `sketch_Q` is NO_SKETCH for a query without a sketch, or with the mean of several.
    """

    vectors_QD: Features
    target_Q: Indices
    sketch_Q: Indices


def embed(retriever: Retriever, rows: Iterable[Row]) -> SplitFeatures:
    """Embed all images and captions of `rows`, in batches of rows to bound memory."""
    iterator, parts = iter(rows), []
    while batch := list(islice(iterator, BATCH)):
        parts.append(_embed_batch(retriever, batch))
    if not parts:
        raise InputError("rows: no photos to evaluate on; name a split that has some")
    return _concatenate(parts)


def embed_queries(retriever: Retriever, rows: Sequence[Row]) -> dict[str, Features]:
    """Query vectors (Q, D) by kind, at most one a photo. Kinds without queries are left out; photos are not
    read."""
    by_kind = make_queries(_query_features(retriever, rows), "per-photo", 0.5)
    return {kind: queries.vectors_QD for kind, queries in by_kind.items() if len(queries.vectors_QD)}


def embed_sketches_and_texts(retriever: Retriever, rows: Sequence[Row]) -> tuple[Features, Features]:
    """The sketches (S, D) and captions (T, D) of `rows`, in order."""
    sketches = [sketch for row in rows for sketch in row["sketches"]]
    texts = [row["text"] for row in rows if row["text"]]
    return embed_sketches(retriever.sketch, sketches), embed_texts(retriever.text, texts)


def make_queries(
    features: SplitFeatures, protocol: Protocol, sketch_weight: float
) -> dict[QueryKind, Queries]:
    """The queries of each kind. A photo with sketch and caption gives sketch+text queries."""
    sketch = _per_sketch(features) if protocol == "per-sketch" else _per_photo(features)
    no_sketch_T = np.full_like(features.text_photo_T, NO_SKETCH)
    text = Queries(features.text_TD, features.text_photo_T, no_sketch_T)
    both = _combine(sketch, text, sketch_weight, features.gate)
    return {"sketch": sketch, "text": text, "sketch+text": both}


def _embed_batch(retriever: Retriever, rows: list[Row]) -> SplitFeatures:
    return replace(
        _query_features(retriever, rows),
        photo_ids=[row["photo_id"] for row in rows],
        categories=[row["category"] for row in rows],
        photo_ND=embed_photos(retriever.photo, [row["photo"] for row in rows]),
    )


def _query_features(retriever: Retriever, rows: Sequence[Row]) -> SplitFeatures:
    sketch_SD, text_TD = embed_sketches_and_texts(retriever, rows)
    sketch_photo_S = np.asarray([i for i, row in enumerate(rows) for _ in row["sketches"]], np.int64)
    text_photo_T = np.asarray([i for i, row in enumerate(rows) if row["text"]], np.int64)
    no_photos = np.empty((0, 0), np.float32)
    return SplitFeatures([], [], no_photos, sketch_SD, sketch_photo_S, text_TD, text_photo_T, retriever.gate)


def _concatenate(parts: Sequence[SplitFeatures]) -> SplitFeatures:
    starts = np.cumsum([0, *(len(part.photo_ids) for part in parts)])
    return SplitFeatures(
        [photo_id for part in parts for photo_id in part.photo_ids],
        [category for part in parts for category in part.categories],
        np.concatenate([part.photo_ND for part in parts]),
        np.concatenate([part.sketch_SD for part in parts]),
        np.concatenate([part.sketch_photo_S + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.text_TD for part in parts]),
        np.concatenate([part.text_photo_T + start for part, start in zip(parts, starts, strict=False)]),
        parts[0].gate,
    )


def _per_sketch(features: SplitFeatures) -> Queries:
    target_S = features.sketch_photo_S
    start_S = np.searchsorted(target_S, target_S)  # the position of the photo's sketch 0
    return Queries(features.sketch_SD, target_S, np.arange(len(target_S)) - start_S)


def _per_photo(features: SplitFeatures) -> Queries:
    target_P, position_S = np.unique(features.sketch_photo_S, return_inverse=True)
    sums_PD = np.zeros((len(target_P), features.sketch_SD.shape[1]), np.float32)
    np.add.at(sums_PD, position_S, features.sketch_SD)
    means_PD = fuse_vectors(sums_PD, None, 0.5, None)
    return Queries(means_PD, target_P, np.full_like(target_P, NO_SKETCH))


def _combine(sketch: Queries, text: Queries, sketch_weight: float, gate: Gate | None) -> Queries:
    has_text = np.isin(sketch.target_Q, text.target_Q)
    target_Q = sketch.target_Q[has_text]
    text_QD = text.vectors_QD[np.searchsorted(text.target_Q, target_Q)]
    vectors_QD = fuse_vectors(sketch.vectors_QD[has_text], text_QD, sketch_weight, gate)
    return Queries(vectors_QD, target_Q, sketch.sketch_Q[has_text])
