"""On a cluster that has no CPU and gets none a command says so and stops; its work would wait for ever."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_jobs.recipes import recipe
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.storage.folder import Folder
from tests.cluster.conftest import Nodes
from tests.gallery.test_gallery import made, unit
from tests.ray_jobs.chat_server import KEY, MODEL, ChatServer
from tests.ray_jobs.test_caption import row, write

# A cluster starts, and five commands, which import the model libraries.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SAYS = {
    "prepare_shards": "reading pictures needs 1 CPUs, the cluster has 0; start nodes with CPUs",
    "caption": "reading and writing shards needs 1 CPUs, the cluster has 0; start nodes with CPUs",
    "search_batch": "searching needs 2 CPUs, the cluster has 0; start nodes with CPUs",
    "ablate": "--cpus: a trial needs 2 CPUs of one node, the largest has 0; give fewer, or start",
    "embed_gallery": "decoding need 2 CPUs, the cluster has 0; start more nodes",
}


def searched(folder: Path) -> list[str]:
    """Options of a search that lacks nothing but room."""
    model, smoke, queries = str(folder / "model"), recipe("smoke"), folder / "queries.parquet"
    checkpoint.save(model, "step-0", build(smoke.model, seed=0), smoke, made_from="", counts={"steps": 0})
    gallery = Folder(str(folder / "gallery"))
    made(gallery, unit(20), digest=checkpoint.read_digest(model))
    pq.write_table(pa.table({"query_id": ["a"], "text": ["a red cup"]}), queries)
    return ["--checkpoint", model, "--gallery", gallery.uri, "--queries", str(folder)]


def refused(nodes: Nodes, name: str, *given: str) -> None:
    process = nodes.start(f"ray_jobs/{name}.py", *given, "--wait", "1", STBIR_CAPTION_KEY=KEY)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 2, said
    assert "waiting up to 1 s for" in said
    assert SAYS[name] in said.splitlines()[-1]


@pytest.mark.parametrize("nodes", [0], indirect=True)
def test_a_job_that_gets_no_cpu_says_so_and_stops(nodes: Nodes, drawn: str, tmp_path: Path) -> None:
    searching, bare = searched(tmp_path), write(tmp_path / "bare", [row(0)])
    with ChatServer().running() as server:
        given = {
            "prepare_shards": ["--source", "synthetic:8"],
            "caption": ["--shards", bare, "--endpoint", server.url, "--model", MODEL],
            "search_batch": searching,
            "ablate": ["--recipes", "smoke", "--shards", drawn, "--folds", "train", "test"],
        }
        for name, more in given.items():
            refused(nodes, name, *more, "--out", str(tmp_path / name))
        embedding = ["--shards", drawn, "--gallery", str(tmp_path / "embed_gallery")]
        refused(nodes, "embed_gallery", *searching[:2], *embedding)
    assert server.paid.total() == 0
