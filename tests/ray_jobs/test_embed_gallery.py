"""The gallery job on a real local cluster, with the smoke model untrained: any weights make a gallery."""

import io
import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_jobs.cli import Failed
from ray_jobs.embed_gallery import parser
from ray_jobs.embedding.progress import Progress
from ray_jobs.jobs.embed_gallery import _check_listing, embed_gallery
from ray_jobs.recipes import recipe
from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.data.schema import Row
from stbir.data.shard_writer import publish, write_rows
from stbir.data.shards import open_shards
from stbir.embedding.embed import embed_photos
from stbir.errors import InputError
from stbir.gallery.gallery import open_gallery
from stbir.model import builder, checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.gallery.world import row

ROWS = [row(i % 8, i // 8, category=f"kind {i % 2}") for i in range(40)]
OTHER_SPLIT: list[Row] = [{**row(0, 7), "photo_id": "elsewhere", "split": "train"}]
NO_PICTURE = b"not a picture"
BAD = (3, 20)


def shards(uri: str, rows: list[Row]) -> str:
    folder = Folder(uri)
    halves = [write_rows(folder, n, part) for n, part in enumerate((rows[:15], rows[15:]))]
    publish(folder, halves, {"in": len(rows), "ok": len(rows), "quarantined": 0}, {})
    return uri


def smoke(uri: str, seed: int = 0) -> str:
    config = recipe("smoke")
    checkpoint.save(uri, "000", builder.build(config.model, seed), config, made_from="", counts={})
    return uri


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return smoke(str(tmp_path_factory.mktemp("checkpoint")))


def embed(**options: object) -> dict[str, object]:
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return embed_gallery(parser().parse_args(words))


@pytest.mark.slow(reason="three embedding jobs, each with an actor that imports the model libraries")
def test_versions_follow_one_another_and_bad_pictures_are_counted(ray_cluster, model, tmp_path: Path):
    rows = [{**each, "photo": NO_PICTURE} if i in BAD else each for i, each in enumerate(ROWS)]
    uri, digest = str(tmp_path / "gallery"), checkpoint.read_digest(model)
    options = {"checkpoint": model, "split": "test", "gallery": uri, "max_bad": 0.05}
    data = shards(str(tmp_path / "shards"), [*rows, *OTHER_SPLIT])
    alike = {"shards": data, "batch": 7}  # or the last bits of the vectors may differ
    ran = embed(**options, **alike, workers=2)
    assert (ran["in"], ran["ok"], ran["quarantined"], ran["recall"]) == (40, 38, 2, 1)
    quarantine = pq.read_table(f"{uri}/quarantine.parquet").to_pylist()
    assert {each["photo_id"] for each in quarantine} == {rows[i]["photo_id"] for i in BAD}
    gallery, first = open_gallery(uri, digest), read_manifest(Folder(uri), "gallery")
    assert first.made_from == digest
    assert first.counts["listed"] == 40
    check_against_the_library(gallery, model)

    np.save(tmp_path / "asked.npy", np.eye(3, gallery.dim, dtype=np.float32))
    again = embed(**options, **alike, index_above=37, queries=tmp_path / "asked.npy")
    stand_ins, real = {"photo", "between", "drawn"}, {"sketch", "text", "sketch+text", "given"}
    assert set(again["recalls"]) == stand_ins | real  # type: ignore[call-overload]
    assert again["index"] == {"kind": "IVF_SQ", "partitions": 1, "nprobes": 1}
    check_against_the_library(open_gallery(uri, digest), model)
    second = read_manifest(Folder(uri), "gallery")
    assert second.digest == first.digest
    assert second.details["version"] > first.details["version"] == gallery.version
    assert len(gallery.search(np.ones((1, gallery.dim), np.float32), 50)[0]) == 38  # still on the old one

    torn = shards(str(tmp_path / "torn"), [{**each, "photo": NO_PICTURE} for each in ROWS])
    with pytest.raises(Failed, match="40 of 40 photos cannot be embedded"):
        embed(**options, shards=torn)
    assert read_manifest(Folder(uri), "gallery") == second
    assert open_gallery(uri, digest).version == second.details["version"]


def check_against_the_library(gallery, model: str) -> None:
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
    small = Image.open(io.BytesIO(gallery.thumbnail("3/2") or b""))
    assert small.size == (16, 16)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"checkpoint": "nowhere"}, "no checkpoint here .*train.py"),
        ({"shards": "nowhere"}, "no shards here .*prepare_shards.py"),
        ({"split": "tset"}, "split 'tset' is empty; there is test"),
        (
            {"gallery": "s3://no-such-bucket/gallery"},
            "s3://no-such-bucket/gallery: cannot be read or written",
        ),
        ({"gallery": "shards"}, "holds a shards, not gallery"),
        ({"max_bad": 7}, "--max-bad: 7"),
        ({"batch": 0}, "--batch: 0"),
        ({"photos": "folder:x"}, "--shards, --photos, --delete: give one of them"),
        ({"shards": "", "photos": "folder:nowhere"}, "nowhere.* cannot be listed"),
        ({"shards": "", "photos": "folder:x", "split": "test"}, "--split: only shards have splits"),
        ({"shards": "", "delete": "x"}, "no gallery here .*embed_gallery"),
        ({"checkpoint": ""}, "--checkpoint: missing"),
    ],
)
def test_bad_input_is_refused_before_any_work(aws, model, tmp_path: Path, options, says):
    given = {"checkpoint": model, "shards": shards(str(tmp_path / "shards"), ROWS), "gallery": tmp_path / "g"}
    if options == {"gallery": "shards"}:
        options = {"gallery": tmp_path / "shards"}
    with pytest.raises(InputError, match=says):
        embed(**{**given, **options})


def test_gpus_that_are_not_there_and_queries_that_do_not_fit_are_refused(
    ray_cluster: str, model: str, tmp_path: Path
) -> None:
    given = {"checkpoint": model, "shards": shards(str(tmp_path / "shards"), ROWS), "gallery": tmp_path / "g"}
    with pytest.raises(InputError, match="--gpu: 1 workers need 1 GPUs, the cluster has 0; start nodes"):
        embed(**given, gpu="yes")
    np.save(tmp_path / "narrow.npy", np.ones((1, 3), np.float32))
    with pytest.raises(InputError, match=r"--queries: .*shape \(1, 3\)"):
        embed(**given, queries=tmp_path / "narrow.npy")


def test_what_was_listed_is_told_and_shards_must_have_been_read_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fixed = ShardsCatalogue(open_shards(shards(str(tmp_path / "shards"), ROWS)))
    counts = {"in": 40}
    _check_listing(fixed, 40, counts)
    assert counts == {"in": 40, "listed": 40}
    with pytest.raises(Failed, match="39 photos were read, 40 were listed; not published"):
        _check_listing(fixed, 40, {"in": 39})
    _check_listing(FolderCatalogue(str(tmp_path)), 41, counts)
    assert "40 photos were read, 41 were listed: the photos have changed meanwhile" in caplog.text
    assert counts["listed"] == 41


def test_photos_that_cannot_be_counted_are_said(caplog: pytest.LogCaptureFixture) -> None:
    def count() -> int:
        raise InputError("the bucket has gone")

    with caplog.at_level(logging.WARNING):
        assert Progress(count).end() is None
    assert "the photos cannot be counted: the bucket has gone" in caplog.text
