"""What people would ask of a catalogue, to measure an index by: the sketches and texts beside its photos."""

import ray

from stbir.data.catalogue.photo import Catalogue
from stbir.data.catalogue.shards import ShardsCatalogue
from stbir.model import checkpoint
from stbir.retrieval.arrays import Features
from stbir.retrieval.queries import asked_with

_PHOTOS = 100


def real_queries(
    catalogue: Catalogue, checkpoint_uri: str, given: dict[str, Features]
) -> dict[str, Features]:
    """Vectors (Q, D) by kind of query: what is given, and what the catalogue knows beside photos, encoded on
    the cluster."""
    if not isinstance(catalogue, ShardsCatalogue):
        return given
    asked: dict[str, Features] = ray.get(ray.remote(num_cpus=1)(_asked).remote(catalogue, checkpoint_uri))
    return given | asked


def _asked(catalogue: ShardsCatalogue, checkpoint_uri: str) -> dict[str, Features]:
    return asked_with(checkpoint.load(checkpoint_uri), catalogue.asking(_PHOTOS))
