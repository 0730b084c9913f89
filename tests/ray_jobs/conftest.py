import pytest


@pytest.fixture(scope="session")
def shards(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few drawn photos with sketches and captions, in train, val and test."""
    # Here and not above: pytest loads this file before it sets what Ray reads when it is imported.
    from ray_jobs.prepare_shards import parser, prepare_shards

    out = str(tmp_path_factory.mktemp("shards") / "drawn")
    prepare_shards(parser().parse_args(["--source", "synthetic:48", "--out", out]))
    return out
