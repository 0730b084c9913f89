"""What people would ask of a catalogue, to measure an index by: the sketches and texts beside its photos."""

from pathlib import Path

import numpy as np
import ray

from stbir.catalogue.photo import Catalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.embedding.queries import asked_with
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.model import checkpoint

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


def read_queries(path: str | None, dim: int) -> dict[str, Features]:
    """Query vectors (Q, D) of a .npy file, as of the kind "given"; without a file, none.

    Raises InputError, naming --queries, where D is not `dim`.
    """
    if path is None:
        return {}
    try:
        query_QD = np.asarray(np.load(Path(path), allow_pickle=False), np.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"--queries: {path}: {error}; give a .npy of float32 (Q, D)") from error
    if query_QD.ndim != 2 or query_QD.shape[1] != dim or not len(query_QD):
        raise InputError(f"--queries: {path}: shape {query_QD.shape}; give a .npy of float32 (Q, {dim})")
    return {"given": query_QD}
