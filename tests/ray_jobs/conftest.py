import pytest


@pytest.fixture(scope="session")
def shards(ray_cluster: str, s3: str) -> str:
    """A few drawn photos with sketches and captions, in train, val and test, in a bucket."""
    # Here and not above: pytest loads this file before it sets what Ray reads when it is imported.
    from ray_jobs.prepare_shards import parser, prepare_shards

    out = f"{s3}/drawn"
    prepare_shards(parser().parse_args(["--source", "synthetic:48", "--out", out]))
    return out
