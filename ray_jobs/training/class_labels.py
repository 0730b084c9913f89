"""The photos of a run with class labels: those of the data set, or clusters of image features."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stbir.config import Recipe
from stbir.data.batch import read_row_groups
from stbir.data.photo_index import UNKNOWN, IntArray, PhotoIndex, build_photo_index, class_names
from stbir.data.shards import Shards
from stbir.embedding.embed import embed_photos
from stbir.gallery.arrays import Features
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from stbir.storage.manifest import MANIFEST_FILE
from stbir.training.clusters import cluster

CLUSTERS_FILE = "clusters.json"  # photo id → cluster, in the folder of the checkpoints


def index_photos_with_labels(
    recipe: Recipe,
    shards: Shards,
    splits: Sequence[str],
    aux: Sequence[Shards] = (),
    out: str | None = None,
    held_out: bool = False,
) -> tuple[PhotoIndex, list[str]]:
    """The photos of a run and the names of their classes.

    A resumed run at `out` reads the clusters it started with. `held_out`: leave out the photos held out for
    validation. Raises InputError for an empty split, and for
    missing class labels.
    """
    if not (recipe.uses_classes and recipe.num_clusters):
        classes = class_names(shards, splits) if recipe.uses_classes else []
        return build_photo_index(shards, splits, classes, aux, held_out), classes
    photos = build_photo_index(shards, splits, [], aux, held_out)
    is_resumed = out is not None and Folder(out).exists(MANIFEST_FILE) and Folder(out).exists(CLUSTERS_FILE)
    labels = _read_clusters(photos, str(out)) if is_resumed else _cluster_photos(photos, recipe)
    return replace(photos, label=labels), [f"cluster {number}" for number in range(recipe.num_clusters)]


def save_clusters(photos: PhotoIndex, out: str) -> None:
    """Save the cluster of each photo, except auxiliary ones, for a resumed run."""
    rows = zip(photos.ids, photos.label, photos.aux, strict=True)
    clusters = {photo_id: int(label) for photo_id, label, aux in rows if not aux}
    Folder(out).write(CLUSTERS_FILE, json.dumps(clusters, indent=1).encode())


def _read_clusters(photos: PhotoIndex, out: str) -> IntArray:
    clusters = json.loads(Folder(out).read(CLUSTERS_FILE))
    rows = zip(photos.ids, photos.aux, strict=True)
    return np.array([UNKNOWN if aux else clusters.get(photo_id, UNKNOWN) for photo_id, aux in rows], np.int64)


def _cluster_photos(photos: PhotoIndex, recipe: Recipe) -> IntArray:
    assert recipe.num_clusters is not None
    labels, own = photos.label.copy(), np.flatnonzero(~photos.aux)
    if recipe.num_clusters == 1:  # needs no features
        labels[own] = 0
        return labels
    labels[own] = cluster(_image_features(photos, own, recipe), recipe.num_clusters, recipe.seed)
    return labels


def _image_features(photos: PhotoIndex, chosen: IntArray, recipe: Recipe) -> Features:
    """Features of the untrained photo encoder, without the appearance dimensions."""
    encoder = build_retriever(recipe.model, recipe.seed).photo
    features = np.empty((len(chosen), recipe.model.width), np.float32)
    for group in np.unique(photos.row_group[chosen]):
        in_group = np.flatnonzero(photos.row_group[chosen] == group)
        [table] = read_row_groups(photos, [int(group)], ("photo",)).values()
        images = [table["photo"][int(row)].as_py() for row in photos.row[chosen[in_group]]]
        features[in_group] = embed_photos(encoder, images)
    return features[:, : recipe.model.dim - recipe.model.appearance_dims]
