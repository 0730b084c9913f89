"""What is asked of a gallery: sketches, captions and both together, embedded (docs/method.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from stbir.config.choices import Protocol
from stbir.data.schema import Row
from stbir.embedding.embed import BATCH, embed_photos, embed_sketches, embed_texts, evaluating
from stbir.errors import InputError
from stbir.gallery.arrays import Features, Index
from stbir.model.fusion import Gate, fuse
from stbir.model.retriever import Retriever

QueryKind = Literal["sketch", "text", "sketch+text"]
KINDS: tuple[QueryKind, ...] = get_args(QueryKind)
NO_SKETCH = -1


@dataclass(frozen=True)
class Embedded:
    """Features of the photos, sketches and captions of a split; `sketch_of`, `text_of`: whose they are."""

    photo_ids: list[str]
    categories: list[str]
    photo_ND: Features
    sketch_SD: Features
    sketch_of: Index  # (S,) photo index, ascending
    text_TD: Features
    text_of: Index  # (T,) photo index, ascending
    gate: Gate | None = None  # how their model weighs sketch against text


@dataclass(frozen=True)
class Queries:
    """What is asked: vectors (Q, D), the right photo (Q,), and which of its sketches asks (Q,).

    `sketch_Q` is NO_SKETCH where none asks, or all together do.
    """

    vectors_QD: Features
    right_Q: Index
    sketch_Q: Index


def embed(retriever: Retriever, rows: Iterable[Row]) -> Embedded:
    """Everything in `rows` embedded, some rows at a time, so that few pictures are in memory."""
    stream, parts = iter(rows), []
    while some := list(islice(stream, BATCH)):
        parts.append(_embed_some(retriever, some))
    if not parts:
        raise InputError("rows: no photo to evaluate on; name a split that has some")
    return _joined(parts)


def _embed_some(retriever: Retriever, rows: list[Row]) -> Embedded:
    return replace(
        _without_photos(retriever, rows),
        photo_ids=[row["photo_id"] for row in rows],
        categories=[row["category"] for row in rows],
        photo_ND=embed_photos(retriever.photo, [row["photo"] for row in rows]),
    )


def asked_with(retriever: Retriever, rows: Sequence[Row]) -> dict[str, Features]:
    """The query vectors (Q, D) of `rows` by kind, one a photo that has what it takes; `photo` is not read."""
    asked = queries(_without_photos(retriever, rows), "per-photo", 0.5)
    return {kind: each.vectors_QD for kind, each in asked.items() if len(each.vectors_QD)}


def _without_photos(retriever: Retriever, rows: Sequence[Row]) -> Embedded:
    sketch_SD, text_TD = embed_asked(retriever, rows)
    sketch_of = _index([i for i, row in enumerate(rows) for _ in row["sketches"]])
    text_of = _index([i for i, row in enumerate(rows) if row["text"]])
    nothing = np.empty((0, 0), np.float32)
    return Embedded([], [], nothing, sketch_SD, sketch_of, text_TD, text_of, retriever.gate)


def embed_asked(retriever: Retriever, rows: Sequence[Row]) -> tuple[Features, Features]:
    """What `rows` ask with, without their photos: sketches (S, D) and captions (T, D), in order."""
    sketches = [sketch for row in rows for sketch in row["sketches"]]
    texts = [row["text"] for row in rows if row["text"]]
    return embed_sketches(retriever.sketch, sketches), embed_texts(retriever.text, texts)


def _joined(parts: Sequence[Embedded]) -> Embedded:
    starts = np.cumsum([0, *(len(part.photo_ids) for part in parts)])
    return Embedded(
        [name for part in parts for name in part.photo_ids],
        [name for part in parts for name in part.categories],
        np.concatenate([part.photo_ND for part in parts]),
        np.concatenate([part.sketch_SD for part in parts]),
        np.concatenate([part.sketch_of + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.text_TD for part in parts]),
        np.concatenate([part.text_of + start for part, start in zip(parts, starts, strict=False)]),
        parts[0].gate,
    )


def queries(embedded: Embedded, protocol: Protocol, sketch_weight: float) -> dict[QueryKind, Queries]:
    """The queries of the three kinds; sketch + text is asked where a photo has both."""
    sketch = _of_sketches(embedded) if protocol == "per-sketch" else _of_photos(embedded)
    text = Queries(embedded.text_TD, embedded.text_of, np.full_like(embedded.text_of, NO_SKETCH))
    return {
        "sketch": sketch,
        "text": text,
        "sketch+text": _of_both(sketch, text, sketch_weight, embedded.gate),
    }


def _of_sketches(embedded: Embedded) -> Queries:
    right = embedded.sketch_of
    first = np.searchsorted(right, right)  # where the sketches of the same photo begin
    return Queries(embedded.sketch_SD, right, np.arange(len(right)) - first)


def _of_photos(embedded: Embedded) -> Queries:
    photos, which = np.unique(embedded.sketch_of, return_inverse=True)
    sums_PD = np.zeros((len(photos), embedded.sketch_SD.shape[1]), np.float32)
    np.add.at(sums_PD, which, embedded.sketch_SD)
    means = fuse(torch.from_numpy(sums_PD), None).numpy()
    return Queries(means, photos, np.full_like(photos, NO_SKETCH))


def _of_both(sketch: Queries, text: Queries, sketch_weight: float, gate: Gate | None) -> Queries:
    with_text = np.isin(sketch.right_Q, text.right_Q)
    right = sketch.right_Q[with_text]
    caption = np.searchsorted(text.right_Q, right)
    sketch_QD, text_QD = (
        torch.from_numpy(q) for q in (sketch.vectors_QD[with_text], text.vectors_QD[caption])
    )
    return Queries(_fused(sketch_QD, text_QD, sketch_weight, gate), right, sketch.sketch_Q[with_text])


def _fused(sketch_QD: Tensor, text_QD: Tensor, sketch_weight: float, gate: Gate | None) -> Features:
    if gate is None:
        return fuse(sketch_QD, text_QD, sketch_weight).numpy()
    device = next(gate.parameters()).device
    with torch.inference_mode(), evaluating(gate):
        return fuse(sketch_QD.to(device), text_QD.to(device), sketch_weight, gate).cpu().numpy()


def _index(values: Sequence[int]) -> Index:
    return np.asarray(values, dtype=np.int64)
