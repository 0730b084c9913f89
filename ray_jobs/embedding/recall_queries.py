"""Real queries to measure an index with: from a catalogue's sketches and texts, or from a file."""

from pathlib import Path

import numpy as np
import ray

from stbir.catalogue.photo import Catalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.errors import InputError
from stbir.gallery.arrays import Features

_NUM_PHOTOS = 100


def catalogue_queries(catalogue: Catalogue, checkpoint_uri: str) -> dict[str, Features]:
    """Query vectors (Q, D) by kind, from the sketches and texts of shards. Encodes them in a Ray task."""
    if not isinstance(catalogue, ShardsCatalogue):
        return {}
    queries: dict[str, Features] = ray.get(ray.remote(num_cpus=1)(_embed).remote(catalogue, checkpoint_uri))
    return queries


def _embed(catalogue: ShardsCatalogue, checkpoint_uri: str) -> dict[str, Features]:
    from stbir.embedding.queries import embed_queries  # imports torch; `read_queries` does not need it
    from stbir.model import checkpoint

    return embed_queries(checkpoint.load(checkpoint_uri), catalogue.sample_queries(_NUM_PHOTOS))


def read_queries(path: str | None, dim: int) -> dict[str, Features]:
    """Query vectors (Q, D) from a .npy file, as the kind "given"; without a file, none.

    Raises InputError, naming --queries, for an unreadable file or another dimension.
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
