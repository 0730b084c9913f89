"""An embedding job on a cluster that has no worker nodes at the start."""

from pathlib import Path

import pytest

from benchmarks.embed import make_photos
from benchmarks.endpoint.world import make_checkpoint
from tests.cluster.conftest import Nodes, finished, wait_while_running

pytestmark = [
    pytest.mark.slow,  # a cluster, and an encoder in it that imports the model libraries
    pytest.mark.timeout(600),
    pytest.mark.parametrize("nodes", [0], indirect=True),  # a head without CPUs
]
NUM_PHOTOS = 1500


def test_job_waits_for_nodes_and_uses_them_by_role(nodes: Nodes, tmp_path: Path) -> None:
    photos, gallery = tmp_path / "photos", str(tmp_path / "gallery")
    make_photos(photos, NUM_PHOTOS)
    model = make_checkpoint(str(tmp_path / "model"), "smoke")
    options = ["--checkpoint", model, "--photos", f"folder:{photos}", "--gallery", gallery, "--batch", "4"]
    job = nodes.start("ray_jobs/embed_gallery.py", *options)
    assert job.stderr is not None
    assert any("waiting up to 900 s for 2 CPUs and 0 GPUs" in line for line in job.stderr)
    accelerator, data = nodes.add("accelerator"), nodes.add("data", cpus=2)
    wait_while_running(job, lambda: bool(nodes.workers(data, "ray::decode_part")), "decoding", 240)
    wait_while_running(job, lambda: bool(nodes.workers(accelerator, "ray::EncoderActor")), "the encoder", 60)
    assert not nodes.workers(accelerator, "ray::decode_part")
    summary = finished(job, 300)
    assert summary["in"] == summary["ok"] == summary["listed"] == NUM_PHOTOS
