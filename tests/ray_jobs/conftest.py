"""Fixtures of the tests of several commands."""

import pytest
import ray

from stbir.data.shard_writer import publish, write_rows
from stbir.data.sources.registry import open_source
from stbir.data.validation import validate_entry
from stbir.storage.folder import Folder


def write_synthetic(uri: str) -> str:
    """Write 48 synthetic photos as shards, without Ray."""
    folder, source = Folder(uri), open_source("synthetic:48")
    rows = (validate_entry(entry, source.read, ("sketch", "text"))[0] for entry in source.entries)
    part = write_rows(folder, 0, (row for row in rows if row is not None))
    publish(folder, [part], {"photos": part.photos.total(), "sketches": part.sketches.total()}, {})
    return folder.uri


@pytest.fixture(scope="session")
def local_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As `synthetic_shards`, in a local folder, written without Ray and S3."""
    return write_synthetic(str(tmp_path_factory.mktemp("shards")))


@pytest.fixture
def no_cpus(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the shared cluster look like a head node without CPUs."""
    [node] = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: [{**node, "Resources": {}}])
