"""An embedding job and an endpoint lose a node: no row is lost, and the endpoint keeps answering."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.embed import make_photos
from serve.settings import DEFAULT
from stbir.gallery.gallery import open_table
from stbir.gallery.table_writer import latest_version
from stbir.storage.folder import Folder
from tests.cluster.conftest import Nodes, finished, wait_while_running
from tests.conftest import free_port
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

# Each starts a cluster, whose processes import the model libraries.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("nodes", [0], indirect=True),  # the head has no CPUs
]

RED_CUP = {"text": (None, "a red cup")}  # a form of one part
PHOTOS = 4000  # tiny encoders need some seconds for them


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_smoke_checkpoint(str(tmp_path_factory.mktemp("model") / "checkpoint"))


def has_encoder(nodes: Nodes, node: Any) -> bool:
    """Whether the encoder actor of an embedding job runs on a node."""
    return bool(nodes.workers(node, "ray::EncoderActor"))


def num_rows(gallery: str) -> int:
    newest = latest_version(Folder(gallery))
    return newest.count_rows() if newest is not None else 0


def test_embedding_job_survives_node_loss(nodes: Nodes, model: str, tmp_path: Path) -> None:
    photos, gallery = tmp_path / "photos", str(tmp_path / "gallery")
    make_photos(photos, PHOTOS)
    pair = [nodes.add("data", cpus=3), nodes.add("data", cpus=3)]
    arguments = ["--checkpoint", model, "--photos", f"folder:{photos}", "--gallery", gallery, "--batch", "4"]
    job = nodes.start("ray_jobs/embed_gallery.py", *arguments)
    wait_while_running(job, lambda: num_rows(gallery) > 0, "the first rows", 240)
    nodes.remove_node(next(node for node in pair if has_encoder(nodes, node)))
    assert num_rows(gallery) < PHOTOS
    done = finished(job, 300)
    expected = [str(path.relative_to(photos)) for path in photos.rglob("*.jpg")]
    assert done["in"] == done["ok"] == len(expected) == PHOTOS
    table = open_table(Folder(gallery), "published").to_table(columns=["photo_id"])
    assert Counter(table["photo_id"].to_pylist()) == Counter(expected)


def two_replica_settings(settings: Path) -> str:
    """The default settings with two replicas, on two nodes, of each kind that a text query uses."""
    tree = yaml.safe_load(DEFAULT.read_text())
    for part in ("ingress", "text", "fusion"):
        tree[part]["options"]["autoscaling_config"] = {"min_replicas": 2, "max_replicas": 2}
        tree[part]["options"]["max_replicas_per_node"] = 1
    settings.write_text(yaml.safe_dump(tree))
    return str(settings)


def send_searches(url: str, stopped: threading.Event, responses: list[tuple[float, int]]) -> None:
    with httpx.Client(trust_env=False, timeout=15) as client:
        while not stopped.is_set():
            try:
                status = client.post(f"{url}/v1/search", files=RED_CUP).status_code
            except httpx.TransportError:
                status = 0
            responses.append((time.monotonic(), status))


def test_endpoint_survives_node_loss_under_load(
    nodes: Nodes, synthetic_shards: str, model: str, tmp_path: Path
) -> None:
    pair = [nodes.add("data", cpus=2), nodes.add("data", cpus=2)]
    gallery = str(tmp_path / "gallery")
    arguments = ["--checkpoint", model, "--shards", synthetic_shards, "--split", "test", "--gallery", gallery]
    finished(nodes.start("ray_jobs/embed_gallery.py", *arguments), 240)
    port = free_port()
    settings = two_replica_settings(tmp_path / "config.yaml")
    server = nodes.start("-m", "tests.cluster.serving", str(port), model, gallery, settings)
    url = f"http://127.0.0.1:{port}"
    wait_while_running(server, lambda: is_answering(url), "the first answer", 300)

    stopped, responses = threading.Event(), list[tuple[float, int]]()
    clients = [threading.Thread(target=send_searches, args=(url, stopped, responses)) for _ in range(4)]
    for client in clients:
        client.start()
    time.sleep(5)
    nodes.remove_node(pair[0])
    removed_at = time.monotonic()
    time.sleep(30)
    stopped.set()
    for client in clients:
        client.join()

    before, after = ([s for at, s in responses if (at > removed_at) is late] for late in (False, True))
    last_failure = max((at for at, status in responses if status != 200), default=removed_at)
    print(f"before {Counter(before)}, after {Counter(after)}")
    print(f"last failure after {last_failure - removed_at:.1f} s")
    assert set(before) == {200}
    assert last_failure - removed_at < 20
    assert sum(status == 200 for at, status in responses if at > last_failure) > 20


def is_answering(url: str) -> bool:
    try:
        return httpx.post(f"{url}/v1/search", files=RED_CUP, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
