"""On a cluster without CPUs a command stops with a message that names what is missing."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stbir.model import checkpoint
from stbir.storage.folder import Folder
from tests.cluster.conftest import Nodes
from tests.gallery.test_gallery import publish_gallery, unit_vectors
from tests.ray_jobs.chat_server import KEY, MODEL, ChatServer
from tests.ray_jobs.test_caption import row, write_shards
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

# Starts a cluster and five commands, which import the model libraries.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MESSAGES = {
    "prepare_shards": "reading images needs 1 CPUs, the cluster has 0; start nodes with CPUs",
    "caption": "reading and writing shards needs 1 CPUs, the cluster has 0; start nodes with CPUs",
    "search_batch": "searching needs 2 CPUs, the cluster has 0; start nodes with CPUs",
    "ablate": "--cpus: a trial needs 2 CPUs on one node, the largest has 0; request fewer, or start",
    "embed_gallery": "decoding need 2 CPUs, the cluster has 0; start more nodes",
}


def make_search_options(folder: Path) -> list[str]:
    """Valid options of search_batch."""
    model, queries = save_smoke_checkpoint(str(folder / "model")), folder / "queries.parquet"
    gallery = Folder(str(folder / "gallery"))
    publish_gallery(gallery, unit_vectors(20), digest=checkpoint.read_digest(model))
    pq.write_table(pa.table({"query_id": ["a"], "text": ["a red cup"]}), queries)
    return ["--checkpoint", model, "--gallery", gallery.uri, "--queries", str(folder)]


def assert_refused(nodes: Nodes, name: str, *options: str) -> None:
    process = nodes.start(f"ray_jobs/{name}.py", *options, "--resource-timeout", "1", STBIR_CAPTION_KEY=KEY)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 2, stderr
    assert "waiting up to 1 s for" in stderr
    assert MESSAGES[name] in stderr.splitlines()[-1]


@pytest.mark.parametrize("nodes", [0], indirect=True)
def test_job_without_cpus_stops_with_a_message(nodes: Nodes, synthetic_shards: str, tmp_path: Path) -> None:
    search_options, shards = make_search_options(tmp_path), write_shards(tmp_path / "bare", [row(0)])
    with ChatServer().running() as server:
        options = {
            "prepare_shards": ["--source", "synthetic:8"],
            "caption": ["--shards", shards, "--endpoint", server.url, "--model", MODEL],
            "search_batch": search_options,
            "ablate": ["--recipes", "smoke", "--shards", synthetic_shards, "--folds", "train", "test"],
        }
        for name, more in options.items():
            assert_refused(nodes, name, *more, "--out", str(tmp_path / name))
        embedding = ["--shards", synthetic_shards, "--gallery", str(tmp_path / "embed_gallery")]
        assert_refused(nodes, "embed_gallery", *search_options[:2], *embedding)
    assert server.delivered.total() == 0
