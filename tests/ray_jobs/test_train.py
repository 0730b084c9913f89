"""The training command as a user runs it: two workers on s3, one of them killed; and what it refuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from ray_jobs import train
from stbir.data.manifest import read_manifest
from stbir.data.storage import Folder
from stbir.errors import InputError
from stbir.model import checkpoint
from tests.conftest import ROOT, wait_until


def steps_done(out: str) -> int:
    try:
        return read_manifest(Folder(out), "checkpoint").counts["steps"]
    except InputError:
        return -1


def run(*arguments: object) -> dict[str, Any]:
    return train.main(train.parser().parse_args([str(a) for a in arguments]))


@pytest.mark.slow(reason="starts two training workers twice, each of which imports torch")
@pytest.mark.timeout(420)
def test_two_workers_on_s3_survive_a_kill_and_finish(ray_cluster: str, s3: str, shards: str) -> None:
    out = f"{s3}/train/two"
    arguments = ["--recipe", "smoke", "--shards", shards, "--out", out, "--workers", "2"]
    arguments += ["--set", "batch=8", "stages.sketch.epochs=8"]
    job = subprocess.Popen(
        [sys.executable, "ray_jobs/train.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": ray_cluster},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: steps_done(out) > 0 or job.poll() is not None, "the first epoch's checkpoint", 180)
    ours = psutil.Process().children(recursive=True)  # the shared cluster's, and no other's
    workers = [p for p in ours if "RayTrainWorker" in " ".join(p.cmdline())]
    assert workers, job.communicate()[1] if job.poll() is not None else "no training worker runs"
    workers[0].send_signal(signal.SIGKILL)
    stdout, stderr = job.communicate(timeout=240)
    assert job.returncode == 0, stderr
    summary = json.loads(stdout.splitlines()[-1])
    assert summary["steps"] == summary["total"] > 0
    assert checkpoint.read_digest(out) == summary["digest"]
    assert "no pretrained CLIP: stage clip" in stderr
    assert "samples/s" in stderr
    assert "val sketch+text acc@1" in stderr
    # Once more: it is all there, and nothing is trained.
    assert run(*arguments)["digest"] == summary["digest"]


def test_a_checkpoint_of_another_run_is_not_gone_on_with(
    ray_cluster: str, shards: str, tmp_path: Path
) -> None:
    from ray_jobs.recipes import recipe
    from stbir.model.builder import build

    smoke, out = recipe("smoke"), str(tmp_path)
    made_from = read_manifest(Folder(shards), "shards").digest
    checkpoint.save(out, "step-0", build(smoke.model), smoke, made_from=made_from, counts={"steps": 0})
    with pytest.raises(InputError, match="another recipe; choose another --out"):
        run("--recipe", "smoke", "--shards", shards, "--out", out, "--set", "batch=4")
    checkpoint.save(out, "step-1", build(smoke.model), smoke, made_from="sha256:other", counts={"steps": 0})
    with pytest.raises(InputError, match="of other shards"):
        run("--recipe", "smoke", "--shards", shards, "--out", out)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--recipe", "best"], "--recipe: no 'best'"),
        (["--set", "batch=0"], "batch: Input should be greater than or equal to 1"),
        (["--workers", "3"], "--workers: batch 16 does not divide by 3"),
        (["--workers", "0"], "does not divide by 0"),
        (["--workers", "16"], "--workers: 16 and the decoding need 18 CPUs; the cluster has 6"),
        (["--split", "dev"], "split 'dev' is empty; there is test, train, val"),
        (["--validate", "dev"], "split 'dev' is empty"),
        (["--shards", "nowhere"], "nowhere: no shards here"),
        (["--clip-shards", "nowhere"], "nowhere: no shards here"),
        (["--set", "model.photo.weights=none/w.pt"], "no file none/w.pt"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    ray_cluster: str, shards: str, tmp_path: Path, change: list[str], says: str
) -> None:
    with pytest.raises(InputError) as refusal:
        run("--recipe", "smoke", "--shards", shards, "--out", tmp_path / "out", *change)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_classes_are_asked_for_where_they_are_needed(ray_cluster: str, tmp_path: Path) -> None:
    from ray_jobs.prepare_shards import parser, prepare_shards
    from tests.data.pictures import png, tree

    line = {
        "id": "a",
        "split": "train",
        "category": "cup",
        "photo": "a.png",
        "sketches": ["s.png"],
        "text": "red",
    }
    tree(tmp_path / "in", {"manifest.jsonl": json.dumps(line), "a.png": png(), "s.png": png()})
    shards = str(tmp_path / "shards")
    prepare_shards(parser().parse_args(["--source", f"manifest:{tmp_path / 'in'}", "--out", shards]))
    with pytest.raises(InputError, match="class: photo a has none, and the recipe needs classes"):
        run("--recipe", "smoke", "--shards", shards, "--out", tmp_path / "out")
