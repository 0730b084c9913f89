"""The embedding job on a local cluster, with the untrained smoke model."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_jobs.embed_gallery import parser
from ray_jobs.jobs.embed_gallery import embed_gallery
from ray_jobs.recipes import recipe
from stbir.data.schema import Row
from stbir.data.shard_writer import publish, write_rows
from stbir.embedding.embed import embed_photos
from stbir.errors import InputError, JobFailedError
from stbir.gallery.gallery import open_gallery
from stbir.model import builder, checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.gallery.test_gallery import DIGEST, publish_gallery, unit_vectors
from tests.gallery.toy_dataset import row

ROWS = [row(i % 8, i // 8, category=f"kind {i % 2}") for i in range(40)]
OTHER_SPLIT: list[Row] = [{**row(0, 7), "photo_id": "elsewhere", "split": "train"}]
NOT_AN_IMAGE = b"not an image"
BAD = (3, 20)


def write_shards(uri: str, rows: list[Row]) -> str:
    folder = Folder(uri)
    parts = [write_rows(folder, n, part) for n, part in enumerate((rows[:15], rows[15:]))]
    publish(folder, parts, {"in": len(rows), "ok": len(rows), "quarantined": 0}, {})
    return uri


def save_smoke_checkpoint(uri: str, seed: int = 0) -> str:
    config = recipe("smoke")
    checkpoint.save(uri, "000", builder.build_retriever(config.model, seed), config, made_from="", counts={})
    return uri


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_smoke_checkpoint(str(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture
def options(model: str, tmp_path: Path) -> dict[str, object]:
    shards = write_shards(str(tmp_path / "shards"), ROWS)
    return {"checkpoint": model, "shards": shards, "gallery": tmp_path / "g"}


def embed(**options: object) -> dict[str, object]:
    args = [arg for name, value in options.items() for arg in (f"--{name.replace('_', '-')}", str(value))]
    return embed_gallery(parser().parse_args(args))


@pytest.mark.slow(reason="three embedding jobs, each with an actor that imports the model libraries")
def test_each_run_publishes_a_version_and_counts_bad_photos(ray_cluster, model, tmp_path: Path):
    rows = [{**each, "photo": NOT_AN_IMAGE} if i in BAD else each for i, each in enumerate(ROWS)]
    uri, digest = str(tmp_path / "gallery"), checkpoint.read_digest(model)
    common = {"checkpoint": model, "split": "test", "gallery": uri, "max_error_rate": 0.05}
    shards = write_shards(str(tmp_path / "shards"), [*rows, *OTHER_SPLIT])
    same = {"shards": shards, "batch": 7}  # another batch size may change the last bits of the vectors
    summary = embed(**common, **same, workers=2)
    assert [summary[name] for name in ("in", "ok", "quarantined", "recall")] == [40, 38, 2, 1]
    quarantine = pq.read_table(f"{uri}/quarantine.parquet").to_pylist()
    assert {each["photo_id"] for each in quarantine} == {rows[i]["photo_id"] for i in BAD}
    gallery, manifest = open_gallery(uri, digest), read_manifest(Folder(uri), "gallery")
    assert manifest.made_from == digest
    assert manifest.counts["listed"] == 40
    check_against_library(gallery, model)

    np.save(tmp_path / "queries.npy", np.eye(3, gallery.dim, dtype=np.float32))
    summary = embed(**common, **same, index_threshold=37, queries=tmp_path / "queries.npy")
    synthetic, real = {"photo", "between", "drawn"}, {"sketch", "text", "sketch+text", "given"}
    filters = {"filter 50.0%", "filter 1.0%", "filter 0.1%"}
    assert set(summary["recalls"]) == synthetic | real | filters  # type: ignore[call-overload]
    assert summary["index"] == {"kind": "IVF_SQ", "partitions": 1, "nprobes": 1}
    check_against_library(open_gallery(uri, digest), model)
    indexed = read_manifest(Folder(uri), "gallery")
    assert indexed.digest == manifest.digest
    assert indexed.details["version"] > manifest.details["version"] == gallery.version
    assert len(gallery.search(np.ones((1, gallery.dim), np.float32), 50)[0]) == 38  # keeps its version

    broken = write_shards(str(tmp_path / "broken"), [{**each, "photo": NOT_AN_IMAGE} for each in ROWS])
    with pytest.raises(JobFailedError, match="40 of 40 photos cannot be embedded"):
        embed(**common, shards=broken)
    assert read_manifest(Folder(uri), "gallery") == indexed
    assert open_gallery(uri, digest).version == indexed.details["version"]


def test_deletion_publishes_a_smaller_indexed_gallery_or_an_empty_one(
    ray_cluster: str, tmp_path: Path
) -> None:
    def delete(photo_ids: list[str], *more: str) -> list[object]:
        options = ["--gallery", str(tmp_path), "--delete", *photo_ids, "--index-threshold", "100", *more]
        summary = embed_gallery(parser().parse_args(options))
        return [summary["ok"], summary["removed"], summary["index"]["kind"]]

    publish_gallery(Folder(str(tmp_path)), unit_vectors(300))
    assert delete(["photo-7"]) == [299, 1, "IVF_SQ"]
    assert open_gallery(str(tmp_path), DIGEST).vector("photo-7") is None
    others = [f"photo-{n}" for n in range(300) if n != 7]
    with pytest.raises(InputError, match="--max-removed: 299 of 299 published photos"):
        delete(others)
    assert delete(others, "--yes") == [0, 299, "exact"]
    gallery = open_gallery(str(tmp_path), DIGEST)
    assert (gallery.count, gallery.search(unit_vectors(1), 5)) == (0, [[]])


def check_against_library(gallery, model: str) -> None:
    good = [each for i, each in enumerate(ROWS) if i not in BAD]
    vectors = embed_photos(checkpoint.load(model, part="photo"), [each["photo"] for each in good])
    assert (gallery.count, gallery.categories) == (38, ["kind 0", "kind 1"])
    for each, vector in zip(good, vectors, strict=True):
        hits = gallery.search(vector[None], 38)[0]
        scores = {hit.photo_id: hit.score for hit in hits}
        assert scores[each["photo_id"]] == pytest.approx(1, abs=1e-5)
        assert {hit.photo_id: hit.text for hit in hits} == {row["photo_id"]: row["text"] for row in good}
        for other, score in zip(good, vectors @ vector, strict=True):
            assert scores[other["photo_id"]] == pytest.approx(score, abs=1e-5)
    assert Image.open(io.BytesIO(gallery.thumbnail("3/2") or b"")).size == (16, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "nowhere"}, "no checkpoint here .*train.py"),
        ({"shards": "nowhere"}, "no shards here .*prepare_shards.py"),
        ({"split": "tset"}, "split 'tset' is empty; available: test"),
        (
            {"gallery": "s3://no-such-bucket/gallery"},
            "s3://no-such-bucket/gallery: cannot be read or written",
        ),
        ({"gallery": "shards"}, "holds a shards, not gallery"),
        ({"max_error_rate": 7}, "--max-error-rate: 7"),
        ({"max_removed": 1.5}, "--max-removed: 1.5 is not a share"),
        ({"batch": 0}, "--batch: 0"),
        ({"photos": "folder:x"}, "--shards, --photos, --delete: give exactly one of them"),
        ({"shards": "", "photos": "folder:nowhere"}, "nowhere.* cannot be listed"),
        ({"shards": "", "photos": "folder:x", "split": "test"}, "--split: only shards have splits"),
        ({"column": "x:int"}, "--column, --allow-scheme: only a table has them"),
        ({"shards": "", "delete": "x"}, "no gallery here .*embed_gallery"),
        ({"checkpoint": ""}, "--checkpoint: missing"),
        ({"part": "3/2"}, "--part: '3/2' is not I/N"),
        (
            {"part": "1/2", "gallery": "milvus://127.0.0.1:1/photos"},
            "--part: milvus://127.0.0.1:1/photos takes one writer at a time",
        ),
    ],
)
def test_invalid_options_are_rejected_before_any_work(aws, options, changes, message):
    if changes == {"gallery": "shards"}:
        changes = {"gallery": options["shards"]}
    with pytest.raises(InputError, match=message):
        embed(**{**options, **changes})


def test_missing_gpus_and_queries_of_another_dimension_are_rejected(
    ray_cluster: str, options: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--gpu: the encoders need 1 GPUs, the cluster has 0; start nodes"):
        embed(**options, gpu="yes")
    np.save(tmp_path / "narrow.npy", np.ones((1, 3), np.float32))
    with pytest.raises(InputError, match=r"--queries: .*shape \(1, 3\)"):
        embed(**options, queries=tmp_path / "narrow.npy")
