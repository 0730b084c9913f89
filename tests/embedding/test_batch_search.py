from pathlib import Path

import pyarrow as pa
import torch

from ray_jobs.recipes import recipe
from stbir.embedding.batch_search import QueryEncoders, SearchParams, search_table
from stbir.embedding.embed import embed_texts
from stbir.gallery.steering import Penalty, Steering, search_steered
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from tests.gallery.test_gallery import DIM, publish_gallery, unit_vectors
from tests.gallery.test_steering import PHOTOS, QUERY


def test_a_query_without_an_id_or_with_an_empty_sketch_is_refused(tmp_path: Path) -> None:
    vectors = unit_vectors(8)
    gallery = publish_gallery(Folder(str(tmp_path)), vectors)
    columns = {
        "query_id": ["a", None, "", "b"],
        "vector": [vectors[0].tolist()] * 3 + [None],
        "sketch": [None, None, None, b""],
        "text": [None, None, None, "a red chair"],
    }
    queries = pa.table(
        columns,
        pa.schema(
            [
                ("query_id", pa.string()),
                ("vector", pa.list_(pa.float32())),
                ("sketch", pa.binary()),
                ("text", pa.string()),
            ]
        ),
    )
    rows = search_table(gallery, QueryEncoders(), queries, SearchParams(1)).to_pylist()
    assert [(row["query_id"], row["photo_id"]) for row in rows] == [
        ("a", "photo-0"),
        ("", None),
        ("", None),
        ("b", None),
    ]
    reasons = [(row["refused"] or "").partition(":")[0] for row in rows]
    assert reasons == ["", "query_id", "query_id", "sketch"]


class NarrowText(torch.nn.Module):
    """A text encoder whose first DIM dimensions are the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build_retriever(recipe("smoke").model, seed=0).text
        self.tokenize, self.dim = self.encoder.tokenize, DIM

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.encoder(tokens)[:, :DIM], dim=-1)


def test_all_queries_are_steered(tmp_path: Path) -> None:
    gallery, text = publish_gallery(Folder(str(tmp_path)), PHOTOS), NarrowText()
    queries = pa.table({"query_id": ["a", "b"], "vector": [QUERY.tolist(), PHOTOS[7].tolist()]})
    params = SearchParams(3, without=("red", "armrests"), group=True)
    rows = search_table(gallery, QueryEncoders(text=text), queries, params).to_pylist()  # type: ignore[arg-type]
    negatives = embed_texts(text, ["red", "armrests"])  # type: ignore[arg-type]
    steering = Steering(tuple(map(Penalty, negatives)), group=True)
    expected = [
        (query_id, hit.photo_id, hit.count, hit.duplicates)
        for query_id, vector in (("a", QUERY), ("b", PHOTOS[7]))
        for hit in search_steered(gallery, vector, 3, steering)
    ]
    found = [(row["query_id"], row["photo_id"], row["count"], tuple(row["duplicates"])) for row in rows]
    assert found == expected
    assert {row["count"] for row in rows} == {4}
