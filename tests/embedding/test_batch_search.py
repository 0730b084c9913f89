from pathlib import Path

import pyarrow as pa

from stbir.embedding.batch_search import QueryEncoders, SearchParams, search_table
from stbir.storage.folder import Folder
from tests.gallery.test_gallery import publish_gallery, unit_vectors


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
