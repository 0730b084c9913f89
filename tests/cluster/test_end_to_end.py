"""The pipeline on s3: two training workers, one of which is killed, then gallery, report and endpoint."""

import json
import signal

import psutil
import pytest

from ray_jobs import embed_gallery, evaluate, train
from serve.wiring import build_application
from stbir.data.shards import open_shards
from stbir.embedding.embed import embed_photos
from stbir.errors import InputError
from stbir.gallery.gallery import open_gallery
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.conftest import start_training, wait_until
from tests.ray_jobs.test_resume import in_order, logged


def num_completed_steps(out: str) -> int:
    try:
        return read_manifest(Folder(out), "checkpoint").counts["steps"]
    except InputError:
        return -1


def kill_worker() -> None:
    children = psutil.Process().children(recursive=True)  # only those of the shared cluster
    workers = [process for process in children if "RayTrainWorker" in " ".join(process.cmdline())]
    assert workers, "no training worker runs"
    workers[0].send_signal(signal.SIGKILL)


@pytest.mark.endurance
@pytest.mark.slow(reason="starts two training workers twice, each of which imports the model libraries")
@pytest.mark.timeout(600)
def test_pipeline_on_s3_with_a_killed_worker(ray_cluster: str, s3: str, shards: str) -> None:
    out = f"{s3}/line"
    arguments = ["--recipe", "smoke", "--shards", shards, "--out", f"{out}/checkpoint", "--workers", "2"]
    arguments += ["--set", "batch_size=8", "stages.sketch.epochs=2"]
    job = start_training(ray_cluster, *arguments)
    wait_until(
        lambda: num_completed_steps(f"{out}/checkpoint") > 0 or job.poll() is not None, "the first epoch", 180
    )
    assert job.poll() is None, job.communicate()[1]
    kill_worker()
    stdout, stderr = job.communicate(timeout=240)
    assert job.returncode == 0, stderr
    trained = json.loads(stdout.splitlines()[-1])
    assert trained["steps"] == trained["total"] > 0
    for line in ("no pretrained CLIP: stage pretrain", "samples/s", "val acc@1: sketch"):
        assert line in stderr
    assert in_order(logged(f"{out}/checkpoint"))
    assert len(logged(f"{out}/checkpoint")) == trained["steps"]
    # A repeated command trains nothing.
    repeated = train.main(train.parser().parse_args(arguments))
    assert repeated["digest"] == trained["digest"] == checkpoint.read_digest(f"{out}/checkpoint")

    common = ["--checkpoint", f"{out}/checkpoint", "--shards", shards, "--split", "test"]
    embedded = embed_gallery.parser().parse_args([*common, "--gallery", f"{out}/gallery"])
    assert embed_gallery.main(embedded)["ok"] > 0
    check_hits(f"{out}/checkpoint", f"{out}/gallery", shards)
    report = evaluate.main(evaluate.parser().parse_args([*common, "--out", f"{out}/report"]))
    assert set(report["results"]) == {"sketch", "text", "sketch+text"}
    assert Folder(f"{out}/report").list_files() == ["manifest.json", "report.html", "report.json"]
    assert build_application({"checkpoint": f"{out}/checkpoint", "gallery": f"{out}/gallery"})


def check_hits(model: str, uri: str, shards: str) -> None:
    """Every photo of the split is in the gallery and is its own top-1 hit."""
    gallery = open_gallery(uri, checkpoint.read_digest(model))
    rows = list(open_shards(shards).iter_rows("test"))
    vectors = embed_photos(checkpoint.load(model, part="photo"), [row["photo"] for row in rows])
    assert gallery.count == len(rows)
    for row, [best, *_] in zip(rows, gallery.search(vectors, 2), strict=True):
        assert best.photo_id == row["photo_id"]
        assert best.score == pytest.approx(1, abs=1e-5)
