"""Search with a table of queries: sketches, texts, both together, or vectors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import torch

from stbir.embedding.embed import embed_texts, encode, eval_mode
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import Gallery
from stbir.gallery.search import Hit
from stbir.gallery.steering import Penalty, Steering, search_steered
from stbir.images import decode_query_sketch
from stbir.model.encoders import ImageEncoder, TextEncoder
from stbir.model.fusion import Gate, fuse

QUERY_ID = "query_id"
QUERY_COLUMNS = ("vector", "sketch", "text")
HITS = pa.schema(
    [
        pa.field(QUERY_ID, pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("photo_id", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("category", pa.string()),
        pa.field("count", pa.int32()),
        pa.field("duplicates", pa.list_(pa.string())),
        pa.field("refused", pa.string()),
    ]
)


@dataclass(frozen=True)
class QueryEncoders:
    """The encoders of sketches and texts, and their fusion gate; None if the queries do not need it."""

    sketch: ImageEncoder | None = None
    text: TextEncoder | None = None
    gate: Gate | None = None


@dataclass(frozen=True)
class SearchParams:
    """The parameters that all queries share. `without`: texts of what a hit should not show."""

    k: int
    sketch_weight: float = 0.5
    category: str | None = None
    where: tuple[Condition, ...] = ()
    without: tuple[str, ...] = ()
    group: bool = False


def search_table(
    gallery: Gallery, encoders: QueryEncoders, queries: pa.Table, params: SearchParams
) -> pa.Table:
    """The hits (schema HITS), up to `params.k` rows a query, with ranks from 1.

    An invalid query (undecodable sketch, no stroke, no content, no id, a vector of another dimension) gives
    one row with the reason in `refused`. A query without hits gives one row of nulls. Raises InputError for
    parameters that do not fit the gallery.
    """
    ids = ["" if id_ is None else str(id_) for id_ in queries[QUERY_ID].to_pylist()]
    errors = {n: f"{QUERY_ID}: empty; give each query an id" for n, id_ in enumerate(ids) if not id_}
    vectors = _embed(queries, encoders, params.sketch_weight, gallery.dim, errors)
    valid = sorted(vectors)
    query_QD = np.stack([vectors[n] for n in valid]) if valid else np.empty((0, gallery.dim), np.float32)
    hits = dict(zip(valid, _search(gallery, query_QD, encoders, params), strict=True))
    rows = [row for n, id_ in enumerate(ids) for row in _rows(id_, hits.get(n, []), errors.get(n))]
    return pa.Table.from_pylist(rows, schema=HITS)


def _search(
    gallery: Gallery, query_QD: Features, encoders: QueryEncoders, params: SearchParams
) -> list[list[Hit]]:
    negatives = _embed_texts(dict(enumerate(params.without)), encoders.text)
    steering = Steering(tuple(map(Penalty, negatives.values())), group=params.group)
    k, category, where = params.k, params.category, params.where
    if not steering:
        return gallery.search(query_QD, k, category, where)
    return [search_steered(gallery, query_D, k, steering, category, where) for query_D in query_QD]


def _rows(query_id: str, hits: Sequence[Hit], error: str | None) -> list[dict[str, object]]:
    if error or not hits:
        return [{QUERY_ID: query_id, "refused": error}]
    return [{QUERY_ID: query_id, "rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, 1)]


def _embed(
    queries: pa.Table, encoders: QueryEncoders, sketch_weight: float, dim: int, errors: dict[int, str]
) -> dict[int, Features]:
    """The vectors (D,) of the valid queries by row number; adds the others to `errors`."""
    columns = {name: _column(queries, name) for name in QUERY_COLUMNS}
    vectors: dict[int, Features] = {}
    for n, (vector, sketch, text) in enumerate(zip(*columns.values(), strict=True)):
        if n in errors:
            continue
        if vector is not None:
            _add_vector(n, vector, dim, vectors, errors)
        elif sketch == b"":
            errors[n] = "sketch: empty; leave it null to search without one"
        elif not sketch and not text:
            errors[n] = "empty query: neither vector nor sketch nor text"
    pending = [n for n in range(len(queries)) if n not in vectors and n not in errors]
    sketch_rows = {n: columns["sketch"][n] for n in pending if columns["sketch"][n]}
    sketches = _embed_sketches(sketch_rows, encoders.sketch, errors)
    text_rows = {n: str(columns["text"][n]) for n in pending if columns["text"][n] and n not in errors}
    texts = _embed_texts(text_rows, encoders.text)
    for n in pending:
        if n not in errors:
            with torch.inference_mode():
                inputs = (_batch_of_one(sketches.get(n)), _batch_of_one(texts.get(n)))
                vectors[n] = fuse(*inputs, sketch_weight, encoders.gate)[0].numpy()
    return vectors


def _column(queries: pa.Table, name: str) -> list[object]:
    has_column = name in queries.column_names
    return list(queries[name].to_pylist()) if has_column else [None] * len(queries)


def _add_vector(
    n: int, value: object, dim: int, vectors: dict[int, Features], errors: dict[int, str]
) -> None:
    vector = np.asarray(value, np.float32)
    if vector.shape != (dim,) or not np.isfinite(vector).all() or not vector.any():
        errors[n] = f"vector: needs {dim} finite numbers, not all 0"
    else:
        vectors[n] = vector


def _embed_sketches(
    images: dict[int, object], encoder: ImageEncoder | None, errors: dict[int, str]
) -> dict[int, Features]:
    decoded = {}
    assert encoder is not None or not images
    for n, image in images.items():
        to = encoder.preprocess  # type: ignore[union-attr]
        try:
            decoded[n] = torch.from_numpy(decode_query_sketch(image, to.size, to.resize))  # type: ignore
        except InputError as error:
            errors[n] = str(error)
    if not decoded or encoder is None:
        return {}
    with eval_mode(encoder):
        sketch_BD = encode(encoder, torch.stack(list(decoded.values())))
    return dict(zip(decoded, sketch_BD, strict=True))


def _embed_texts(texts: dict[int, str], encoder: TextEncoder | None) -> dict[int, Features]:
    if not texts or encoder is None:
        return {}
    return dict(zip(texts, embed_texts(encoder, list(texts.values())), strict=True))


def _batch_of_one(vector: Features | None) -> torch.Tensor | None:
    return None if vector is None else torch.from_numpy(np.array(vector))[None]  # (1, D)
