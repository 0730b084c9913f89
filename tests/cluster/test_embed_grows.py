"""An embedding job on a cluster that is at zero when it begins."""

from pathlib import Path

import pytest

from benchmarks.embed import make_model, make_pictures
from tests.cluster.conftest import Nodes, finished, wait_beside

pytestmark = [
    pytest.mark.slow,  # a cluster, and an encoder in it that imports the model libraries
    pytest.mark.timeout(600),
    pytest.mark.parametrize("nodes", [0], indirect=True),  # the head keeps no work
]
PHOTOS = 1500


def test_it_waits_for_room_and_work_goes_where_it_belongs(nodes: Nodes, tmp_path: Path) -> None:
    pictures, gallery = tmp_path / "pictures", str(tmp_path / "gallery")
    make_pictures(pictures, PHOTOS)
    model = make_model(str(tmp_path / "model"), "smoke")
    wanted = ["--checkpoint", model, "--photos", f"folder:{pictures}", "--gallery", gallery, "--batch", "4"]
    job = nodes.start("ray_jobs/embed_gallery.py", *wanted)
    assert job.stderr is not None
    assert any("waiting up to 900 s for 2 CPUs and 0 GPUs" in line for line in job.stderr)
    accelerator, data = nodes.add("accelerator"), nodes.add("data", cpus=2)
    wait_beside(job, lambda: bool(nodes.workers(data, "ray::decode_part")), "decoding", 240)
    wait_beside(job, lambda: bool(nodes.workers(accelerator, "ray::PhotoTower")), "the encoder", 60)
    assert not nodes.workers(accelerator, "ray::decode_part")
    done = finished(job, 300)
    assert done["in"] == done["ok"] == done["listed"] == PHOTOS
