"""Many queries at once on the shared cluster: the same hits as one by one, every query counted."""

import json
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
import torch

from ray_jobs.cli import Failed
from ray_jobs.jobs.search_batch import _files, _write, check, search_batch
from ray_jobs.recipes import recipe
from ray_jobs.search_batch import parser
from stbir.embedding.embed import embed_sketches, embed_texts
from stbir.errors import InputError
from stbir.gallery.gallery import Gallery, open_gallery, schema, table_uri
from stbir.gallery.publish import prepare, publish
from stbir.model import builder, checkpoint
from stbir.model.fusion import fuse
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, read_manifest, write_manifest
from tests.gallery.world import png


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    uri, smoke = str(tmp_path_factory.mktemp("model")), recipe("smoke")
    checkpoint.save(uri, "000", builder.build(smoke.model, 0), smoke, made_from="", counts={})
    return uri


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


def run(model, gallery, queries, out, *more):
    given = ["--checkpoint", model, "--gallery", gallery.uri, "--queries", str(queries), "--out", str(out)]
    return search_batch(parser().parse_args([*given, *map(str, more)]))


def write(folder: Path, **columns) -> Path:
    folder.mkdir()
    table = pa.table(columns)
    pq.write_table(table.slice(0, 3), folder / "a.parquet")
    pq.write_table(table.slice(3), folder / "b.parquet")
    return folder


@pytest.mark.slow(reason="an actor that imports the model libraries")
def test_every_query_is_answered_as_if_alone_or_says_why_not(ray_cluster, model, gallery, tmp_path):
    vector = gallery.vector("photo-5").tolist()
    queries = write(
        tmp_path / "queries",
        query_id=["drawn", "worded", "both", "vector", "torn", "nothing", "short"],
        sketch=pa.array([png(1, 2), None, png(3, 4), None, b"no picture", None, None], pa.binary()),
        text=[None, "a red chair", "a blue shoe", None, None, "", None],
        vector=pa.array([None, None, None, vector, None, None, [1.0]], pa.list_(pa.float32())),
    )
    more = ("--k", 4, "--where", json.dumps([{"column": "price", "op": "lt", "value": 40}]), "--max-bad", 0.5)
    ran = run(model, gallery, queries, tmp_path / "hits", *more)
    assert (ran["in"], ran["answered"], ran["refused"], ran["hits"]) == (7, 4, 3, 16)
    assert read_manifest(Folder(str(tmp_path / "hits")), "hits").counts["hits"] == 16
    found = pq.read_table(tmp_path / "hits" / "hits.parquet").to_pylist()
    refused = pq.read_table(tmp_path / "hits" / "refused.parquet").to_pylist()
    assert {row["query_id"]: row["refused"].partition(":")[0] for row in refused} == {
        "torn": "sketch",
        "nothing": "nothing to search by",
        "short": "vector",
    }
    for name, query in alone(model, vector).items():
        mine = [row for row in found if row["query_id"] == name]
        assert [row["rank"] for row in mine] == [1, 2, 3, 4]
        cheap = gallery.search(query, 60)[0]
        want = [hit for hit in cheap if int(hit.photo_id[6:]) < 40][:4]
        assert [row["photo_id"] for row in mine] == [hit.photo_id for hit in want]
        assert [row["score"] for row in mine] == pytest.approx([hit.score for hit in want], abs=1e-4)


def test_queries_may_lie_in_one_file_or_in_a_folder(tmp_path, monkeypatch):
    folder = write(tmp_path / "queries", query_id=["a", "b", "c", "d"], text=["cup"] * 4)
    monkeypatch.chdir(folder)
    assert [names for _, names in map(_files, (str(folder), f"{folder}/b.parquet", "b.parquet"))] == [
        ["a.parquet", "b.parquet"],
        ["b.parquet"],
        ["b.parquet"],
    ]
    for place in (f"{folder}/b.parquet", "b.parquet"):
        [around, [name]] = _files(place)
        assert around.read(name) == (folder / "b.parquet").read_bytes()
    assert _files(str(tmp_path / "none.parquet"))[1] == []


def test_a_cluster_without_cpus_is_refused(no_cpus, model, gallery, tmp_path):
    queries = write(tmp_path / "queries", query_id=["worded"], text=["a red chair"])
    with pytest.raises(InputError, match="searching needs 2 CPUs, the cluster has 0; start nodes with CPUs"):
        run(model, gallery, queries, tmp_path / "hits")


@pytest.mark.parametrize(
    ("answered", "refused", "says"), [(95, 4, "not as many came out"), (95, 5, "5 of 100 queries cannot be")]
)
def test_what_is_lost_or_refused_too_often_is_not_published(tmp_path, answered, refused, says):
    counts = {"in": 100, "answered": answered, "refused": refused, "hits": 0}
    check(counts | {"answered": 100 - refused}, 0.05, Folder(str(tmp_path)))
    with pytest.raises(Failed, match=says):
        check(counts, 0.04, Folder(str(tmp_path)))


def test_a_run_cut_short_leaves_no_manifest_of_the_one_before(ray_cluster, tmp_path):
    out = Folder(str(tmp_path))
    write_manifest(out, Manifest("hits", "sha256:before", {"in": 1}))
    with pytest.raises(pa.ArrowInvalid, match="rank"):
        _write(out, ray.data.from_arrow(pa.table({"query_id": ["a"]})))
    assert not out.exists("manifest.json")


def alone(model: str, vector: list[float]) -> dict[str, np.ndarray]:
    retriever = checkpoint.load(model)
    drawn = torch.from_numpy(embed_sketches(retriever.sketch, [png(1, 2), png(3, 4)]))
    worded = torch.from_numpy(embed_texts(retriever.text, ["a red chair", "a blue shoe"]))
    with torch.inference_mode():
        both = fuse(drawn[1:], worded[1:], 0.5, retriever.gate).numpy()
    rows = {"drawn": drawn[:1].numpy(), "worded": worded[:1].numpy(), "both": both}
    return {**rows, "vector": np.array([vector], np.float32)}


@pytest.mark.parametrize(
    ("columns", "more", "says"),
    [
        ({"text": ["x"]}, [], "needs the column query_id and one of vector, sketch, text"),
        ({"query_id": ["a"]}, [], "needs the column query_id and one of"),
        ({"query_id": ["a"], "text": ["x"]}, ["--where", "price < 3"], "--where: cannot be read"),
        ({"query_id": ["a"], "text": ["x"]}, ["--gallery", "nowhere"], "no gallery here"),
    ],
)
def test_bad_input_is_refused_before_any_work(model, gallery, tmp_path, columns, more, says):
    with pytest.raises(InputError, match=says):
        run(model, gallery, write(tmp_path / "q", **columns), tmp_path / "out", *more)
