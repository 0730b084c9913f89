"""A node is lost under an embedding job and under an endpoint: no row goes with it, and answers go on."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.embed import make_pictures
from ray_jobs.recipes import recipe
from serve.settings import DEFAULT
from stbir.gallery.gallery import open_table
from stbir.gallery.table_writer import newest_version
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.storage.folder import Folder
from tests.cluster.conftest import Nodes, finished, wait_beside
from tests.conftest import free_port

# Each starts a cluster, and processes in it that import the model libraries.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("nodes", [0], indirect=True),  # the head keeps no work
]

RED_CUP = {"text": (None, "a red cup")}  # a form of one part
PHOTOS = 4000  # an encoder of tiny towers is busy with them for some seconds


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri, smoke = str(tmp_path_factory.mktemp("model") / "checkpoint"), recipe("smoke")
    checkpoint.save(uri, "step-0", build(smoke.model, seed=0), smoke, made_from="", counts={"steps": 0})
    return uri


def encodes(nodes: Nodes, node: Any) -> bool:
    """Whether the photo tower of an embedding job is on a node."""
    return bool(nodes.workers(node, "ray::PhotoTower"))


def rows(gallery: str) -> int:
    newest = newest_version(Folder(gallery))
    return newest.count_rows() if newest is not None else 0


def test_an_embedding_job_loses_a_node_and_no_row(nodes: Nodes, model: str, tmp_path: Path) -> None:
    pictures, gallery = tmp_path / "pictures", str(tmp_path / "gallery")
    make_pictures(pictures, PHOTOS)
    pair = [nodes.add("data", cpus=3), nodes.add("data", cpus=3)]
    wanted = ["--checkpoint", model, "--photos", f"folder:{pictures}", "--gallery", gallery, "--batch", "4"]
    job = nodes.start("ray_jobs/embed_gallery.py", *wanted)
    wait_beside(job, lambda: rows(gallery) > 0, "the first rows", 240)
    nodes.lose(next(node for node in pair if encodes(nodes, node)))
    assert rows(gallery) < PHOTOS
    done = finished(job, 300)
    expected = [str(path.relative_to(pictures)) for path in pictures.rglob("*.jpg")]
    assert done["in"] == done["ok"] == len(expected) == PHOTOS
    table = open_table(Folder(gallery), "published").to_table(columns=["photo_id"])
    assert Counter(table["photo_id"].to_pylist()) == Counter(expected)


def twice(settings: Path) -> str:
    """The settings shipped, with two replicas, on two nodes, of what answers a query of words."""
    tree = yaml.safe_load(DEFAULT.read_text())
    for part in ("ingress", "text", "fusion"):
        tree[part]["options"]["autoscaling_config"] = {"min_replicas": 2, "max_replicas": 2}
        tree[part]["options"]["max_replicas_per_node"] = 1
    settings.write_text(yaml.safe_dump(tree))
    return str(settings)


def ask(url: str, over: threading.Event, said: list[tuple[float, int]]) -> None:
    with httpx.Client(trust_env=False, timeout=15) as client:
        while not over.is_set():
            try:
                status = client.post(f"{url}/v1/search", files=RED_CUP).status_code
            except httpx.TransportError:
                status = 0
            said.append((time.monotonic(), status))


def test_an_endpoint_loses_a_node_under_load_and_answers(
    nodes: Nodes, drawn: str, model: str, tmp_path: Path
) -> None:
    pair = [nodes.add("data", cpus=2), nodes.add("data", cpus=2)]
    gallery = str(tmp_path / "gallery")
    wanted = ["--checkpoint", model, "--shards", drawn, "--split", "test", "--gallery", gallery]
    finished(nodes.start("ray_jobs/embed_gallery.py", *wanted), 240)
    port = free_port()
    settings = twice(tmp_path / "config.yaml")
    server = nodes.start("-m", "tests.cluster.serving", str(port), model, gallery, settings)
    url = f"http://127.0.0.1:{port}"
    wait_beside(server, lambda: answers(url), "the first answer", 300)

    over, said = threading.Event(), list[tuple[float, int]]()
    clients = [threading.Thread(target=ask, args=(url, over, said)) for _ in range(4)]
    for client in clients:
        client.start()
    time.sleep(5)
    nodes.lose(pair[0])
    lost = time.monotonic()
    time.sleep(30)
    over.set()
    for client in clients:
        client.join()

    before, after = ([s for at, s in said if (at > lost) is late] for late in (False, True))
    last_bad = max((at for at, status in said if status != 200), default=lost)
    print(f"before {Counter(before)}, after {Counter(after)}; the last refusal {last_bad - lost:.1f} s on")
    assert set(before) == {200}
    assert last_bad - lost < 20
    assert sum(status == 200 for at, status in said if at > last_bad) > 20


def answers(url: str) -> bool:
    try:
        return httpx.post(f"{url}/v1/search", files=RED_CUP, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
