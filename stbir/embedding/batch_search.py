"""Many queries of a table → their hits: sketches, captions, both together, or vectors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import torch

from stbir.embedding.embed import embed_texts, encode, evaluating
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import Gallery, Hit
from stbir.images import sketch_pixels
from stbir.model.encoders import ImageEncoder, TextEncoder
from stbir.model.fusion import Gate, fuse

QUERY_ID = "query_id"
ASKED_BY = ("vector", "sketch", "text")
HITS = pa.schema(
    [
        pa.field(QUERY_ID, pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("photo_id", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("category", pa.string()),
        pa.field("refused", pa.string()),
    ]
)


@dataclass(frozen=True)
class Encoders:
    """What turns queries into vectors; None where no query of the table needs it."""

    sketch: ImageEncoder | None = None
    text: TextEncoder | None = None
    gate: Gate | None = None


@dataclass(frozen=True)
class Wish:
    """What every query of the table asks for."""

    k: int
    sketch_weight: float = 0.5
    category: str | None = None
    where: tuple[Condition, ...] = ()


def ask(gallery: Gallery, encoders: Encoders, queries: pa.Table, wish: Wish) -> pa.Table:
    """The hits (HITS), `wish.k` rows a query in its order, ranks from 1.

    A query that cannot be asked (no picture, nothing to search by, a vector of another width) is one row
    without a photo that says in `refused` why; one that finds nothing is a row without either. Raises
    InputError for a wish that does not fit the gallery.
    """
    refused: dict[int, str] = {}
    vector_of = _encoded(queries, encoders, wish.sketch_weight, gallery.dim, refused)
    asked = sorted(vector_of)
    found = gallery.search(_stacked(vector_of, asked, gallery.dim), wish.k, wish.category, wish.where)
    hits_of = dict(zip(asked, found, strict=True))
    names = map(str, queries[QUERY_ID].to_pylist())
    rows = [row for n, name in enumerate(names) for row in _rows(name, hits_of.get(n, []), refused.get(n))]
    return pa.Table.from_pylist(rows, schema=HITS)


def _rows(name: str, hits: Sequence[Hit], refused: str | None) -> list[dict[str, object]]:
    """Those of one query; one without a photo where it found none."""
    if refused or not hits:
        return [{QUERY_ID: name, "refused": refused}]
    return [{QUERY_ID: name, "rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, 1)]


def _encoded(
    queries: pa.Table, encoders: Encoders, sketch_weight: float, dim: int, refused: dict[int, str]
) -> dict[int, Features]:
    """The vector (D,) of each query by its place; why not, in `refused`."""
    given = {name: _column(queries, name) for name in ASKED_BY}
    vector_of: dict[int, Features] = {}
    for n in range(len(queries)):
        if given["vector"][n] is not None:
            _take_vector(n, given["vector"][n], dim, vector_of, refused)
        elif not given["sketch"][n] and not given["text"][n]:
            refused[n] = "nothing to search by: neither vector nor sketch nor text"
    open_ = [n for n in range(len(queries)) if n not in vector_of and n not in refused]
    drawn = _sketches([n for n in open_ if given["sketch"][n]], given["sketch"], encoders.sketch, refused)
    worded = [n for n in open_ if given["text"][n] and n not in refused]
    written = _texts(worded, given["text"], encoders.text)
    for n in open_:
        if n not in refused:
            both = (_row(drawn.get(n)), _row(written.get(n)))
            with torch.inference_mode():
                vector_of[n] = fuse(*both, sketch_weight, encoders.gate)[0].numpy()
    return vector_of


def _column(queries: pa.Table, name: str) -> list[object]:
    there = name in queries.column_names
    return list(queries[name].to_pylist()) if there else [None] * len(queries)


def _take_vector(
    n: int, value: object, dim: int, vector_of: dict[int, Features], refused: dict[int, str]
) -> None:
    vector = np.asarray(value, np.float32)
    if vector.shape != (dim,) or not np.isfinite(vector).all() or not vector.any():
        refused[n] = f"vector: needs {dim} numbers, not all 0"
    else:
        vector_of[n] = vector


def _sketches(
    places: Sequence[int], pictures: Sequence[object], encoder: ImageEncoder | None, refused: dict[int, str]
) -> dict[int, Features]:
    decoded = {}
    assert encoder is not None or not places
    for n in places:
        try:
            decoded[n] = torch.from_numpy(sketch_pixels(pictures[n], encoder.preprocess.size))  # type: ignore
        except InputError as error:
            refused[n] = f"sketch: {error}"
    if not decoded or encoder is None:
        return {}
    with evaluating(encoder):
        sketch_BD = encode(encoder, torch.stack(list(decoded.values())))
    return dict(zip(decoded, sketch_BD, strict=True))


def _texts(
    places: Sequence[int], texts: Sequence[object], encoder: TextEncoder | None
) -> dict[int, Features]:
    if not places or encoder is None:
        return {}
    return dict(zip(places, embed_texts(encoder, [str(texts[n]) for n in places]), strict=True))


def _row(vector: Features | None) -> torch.Tensor | None:
    return None if vector is None else torch.from_numpy(np.array(vector))[None]  # (1, D)


def _stacked(vector_of: dict[int, Features], places: Sequence[int], dim: int) -> Features:
    return np.stack([vector_of[n] for n in places]) if places else np.empty((0, dim), np.float32)
