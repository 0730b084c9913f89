"""The batch search job on the shared cluster: the hits of single searches, and a count of every query."""

import json
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
import torch

from ray_jobs.jobs.search_batch import _inspect, _query_files, _read_group, _write, check_counts, search_batch
from ray_jobs.recipes import recipe
from ray_jobs.search_batch import parser
from stbir.embedding.embed import embed_sketches, embed_texts
from stbir.errors import InputError, JobFailedError
from stbir.gallery.gallery import Gallery, open_gallery
from stbir.gallery.publish import prepare, publish
from stbir.gallery.table import schema, table_uri
from stbir.model import checkpoint
from stbir.model.fusion import fuse
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, read_manifest, write_manifest
from tests.data.image_files import png, sketch_png
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_smoke_checkpoint(str(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def gallery(model, tmp_path_factory) -> Gallery:
    folder, dim = Folder(str(tmp_path_factory.mktemp("gallery"))), recipe("smoke").model.dim
    photos = np.random.default_rng(0).normal(size=(60, dim)).astype(np.float32)
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    columns = {
        "photo_id": [f"photo-{n}" for n in range(60)],
        "category": ["even", "odd"] * 30,
        "content": [f"{n:064x}" for n in range(60)],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(photos.ravel()), dim),
    }
    arrays = [pa.array(columns[f.name]) if f.name in columns else pa.nulls(60, f.type) for f in schema(dim)]
    table = pa.Table.from_arrays(arrays, schema=schema(dim))
    table = table.append_column("price", pa.array(range(60)))
    version = lance.write_dataset(table, table_uri(folder)).version
    digest = checkpoint.read_digest(model)
    publish(folder, prepare(folder, version, digest, None), {"ok": 60})
    gallery = open_gallery(folder.uri, digest)
    gallery.uri = folder.uri
    return gallery


def run(model, gallery, queries, out, *options):
    paths = ["--checkpoint", model, "--gallery", gallery.uri, "--queries", str(queries), "--out", str(out)]
    return search_batch(parser().parse_args([*paths, *map(str, options)]))


def write_queries(folder: Path, **columns) -> Path:
    folder.mkdir()
    table = pa.table(columns)
    pq.write_table(table.slice(0, 3), folder / "a.parquet")
    pq.write_table(table.slice(3), folder / "b.parquet")
    return folder


@pytest.mark.slow(reason="an actor that imports the model libraries")
def test_hits_equal_single_searches_and_invalid_queries_have_a_reason(ray_cluster, model, gallery, tmp_path):
    vector = gallery.vector("photo-5").tolist()
    queries = write_queries(
        tmp_path / "queries",
        query_id=["sketch", "text", "both", "vector", "undecodable", "empty", "short", "blank"],
        sketch=pa.array(
            [sketch_png(1), None, sketch_png(3), None, b"not an image", None, None, png(255)], pa.binary()
        ),
        text=[None, "a red chair", "a blue shoe", None, None, "", None, None],
        vector=pa.array([None, None, None, vector, None, None, [1.0], None], pa.list_(pa.float32())),
    )
    where = json.dumps([{"column": "price", "op": "lt", "value": 40}])
    options = ("--k", 4, "--where", where, "--max-error-rate", 0.5)
    summary = run(model, gallery, queries, tmp_path / "hits", *options)
    assert [summary[name] for name in ("in", "answered", "refused", "hits")] == [8, 4, 4, 16]
    assert read_manifest(Folder(str(tmp_path / "hits")), "hits").counts["hits"] == 16
    hits = pq.read_table(tmp_path / "hits" / "hits.parquet").to_pylist()
    refused = pq.read_table(tmp_path / "hits" / "refused.parquet").to_pylist()
    assert {row["query_id"]: row["refused"].partition(":")[0] for row in refused} == {
        "undecodable": "sketch",
        "empty": "empty query",
        "short": "vector",
        "blank": "sketch",
    }
    for name, query in query_vectors(model, vector).items():
        rows = [row for row in hits if row["query_id"] == name]
        assert [row["rank"] for row in rows] == [1, 2, 3, 4]
        expected = [hit for hit in gallery.search(query, 60)[0] if int(hit.photo_id[6:]) < 40][:4]
        assert [row["photo_id"] for row in rows] == [hit.photo_id for hit in expected]
        assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in expected], abs=1e-4)


def query_vectors(model: str, vector: list[float]) -> dict[str, np.ndarray]:
    retriever = checkpoint.load(model)
    sketches = torch.from_numpy(embed_sketches(retriever.sketch, [sketch_png(1), sketch_png(3)]))
    texts = torch.from_numpy(embed_texts(retriever.text, ["a red chair", "a blue shoe"]))
    with torch.inference_mode():
        both = fuse(sketches[1:], texts[1:], 0.5, retriever.gate).numpy()
    vectors = {"sketch": sketches[:1].numpy(), "text": texts[:1].numpy(), "both": both}
    return {**vectors, "vector": np.array([vector], np.float32)}


@pytest.mark.parametrize("content", [b"PAR1 no more than its name PAR1", b"", b"query_id,text\na,cup\n"])
def test_a_file_that_is_no_parquet_is_named_before_any_work(model, gallery, tmp_path, content):
    queries = write_queries(tmp_path / "q", query_id=["a"], text=["cup"])
    (queries / "c.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"--queries: .*/q/c\.parquet: not a readable Parquet file") as error:
        run(model, gallery, queries, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_row_groups_are_read_in_one_schema_and_damage_names_the_file(tmp_path):
    vectors = pa.array([[1.0, 2.0], None], pa.list_(pa.float64()))
    pq.write_table(
        pa.table({"query_id": [1, 2], "vector": vectors}), tmp_path / "a.parquet", row_group_size=1
    )
    pq.write_table(pa.table({"text": ["cup"] * 9, "query_id": [*"abcdefghi"]}), tmp_path / "b.parquet")
    queries, names = _query_files(str(tmp_path))
    groups, columns = _inspect(queries, names)
    assert (groups["rows"].to_pylist(), columns) == ([1, 1, 9], ["vector", "text"])
    tables = list(_read_group(groups, queries, columns, batch=5))
    assert [len(table) for table in tables] == [1, 1, 5, 4]
    whole = pa.concat_tables(tables)
    assert whole["query_id"].to_pylist() == ["1", "2", *"abcdefghi"]
    assert whole["vector"].to_pylist() == [[1.0, 2.0], *[None] * 10]
    assert whole["text"].to_pylist() == [None, None, *["cup"] * 9]
    data = bytearray((tmp_path / "b.parquet").read_bytes())
    data[4:40] = bytes(36)
    (tmp_path / "b.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"b\.parquet: not a readable Parquet file"):
        list(_read_group(groups, queries, columns, batch=5))


def test_queries_are_a_file_or_a_folder(tmp_path, monkeypatch):
    folder = write_queries(tmp_path / "queries", query_id=["a", "b", "c", "d"], text=["cup"] * 4)
    monkeypatch.chdir(folder)
    assert _query_files(str(folder))[1] == ["a.parquet", "b.parquet"]
    for uri in (f"{folder}/b.parquet", "b.parquet"):
        [parent, names] = _query_files(uri)
        assert names == ["b.parquet"]
        assert parent.read("b.parquet") == (folder / "b.parquet").read_bytes()
    assert _query_files(str(tmp_path / "none.parquet"))[1] == []


def test_cluster_needs_cpus(no_cpus, model, gallery, tmp_path):
    queries = write_queries(tmp_path / "queries", query_id=["a"], text=["a red chair"])
    with pytest.raises(InputError, match="searching needs 2 CPUs, the cluster has 0; start nodes with CPUs"):
        run(model, gallery, queries, tmp_path / "hits")


@pytest.mark.parametrize(
    ("answered", "refused", "message"),
    [(95, 4, "100 queries went in, but 99 came out"), (95, 5, "5 of 100 queries are invalid")],
)
def test_missing_or_too_many_invalid_queries_fail_the_job(tmp_path, answered, refused, message):
    counts = {"in": 100, "answered": answered, "refused": refused, "hits": 0}
    check_counts(counts | {"answered": 100 - refused}, 0.05, Folder(str(tmp_path)))
    with pytest.raises(JobFailedError, match=message):
        check_counts(counts, 0.04, Folder(str(tmp_path)))


def test_failed_run_removes_the_manifest_of_the_last_one(ray_cluster, tmp_path):
    out = Folder(str(tmp_path))
    write_manifest(out, Manifest("hits", "sha256:before", {"in": 1}), files={})
    with pytest.raises(pa.ArrowInvalid, match="rank"):
        _write(out, ray.data.from_arrow(pa.table({"query_id": ["a"]})))
    assert not out.exists("manifest.json")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"text": ["x"]}, [], r"a\.parquet: needs the column query_id"),
        ({"query_id": ["a"]}, [], "needs the column query_id and one of"),
        ({"query_id": ["a"], "sketch": [1]}, [], r"a\.parquet: column sketch is int64, needs large_binary"),
        ({"query_id": ["a"], "vector": ["1"]}, [], r"a\.parquet: column vector is string, needs list"),
        ({"query_id": ["a"], "text": ["x"]}, ["--where", "price < 3"], "--where: not valid"),
        ({"query_id": ["a"], "text": ["x"]}, ["--without", " "], "--without: an empty text"),
        ({"query_id": ["a"], "text": ["x"]}, ["--gallery", "nowhere"], "no gallery here"),
    ],
)
def test_invalid_input_is_rejected_before_any_work(model, gallery, tmp_path, columns, options, message):
    with pytest.raises(InputError, match=message):
        run(model, gallery, write_queries(tmp_path / "q", **columns), tmp_path / "out", *options)
