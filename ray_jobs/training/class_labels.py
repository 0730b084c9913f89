"""The photos of a run with their classes: those of the data, or clusters of image features."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stbir.config import Recipe
from stbir.data.batch import read_places
from stbir.data.photo_index import UNKNOWN, Ints, Photos, classes_of, index_photos
from stbir.data.shards import Shards
from stbir.embedding.embed import embed_photos
from stbir.gallery.arrays import Features
from stbir.model.builder import build
from stbir.storage.folder import Folder
from stbir.storage.manifest import NAME as MANIFEST
from stbir.training.clusters import cluster

KEPT = "clusters.json"  # in the folder of the checkpoints: photo → cluster


def indexed(
    recipe: Recipe,
    shards: Shards,
    splits: Sequence[str],
    aux: Sequence[Shards] = (),
    out: str | None = None,
) -> tuple[Photos, list[str]]:
    """The photos a run may draw from, and the names of their classes.

    A run at `out` goes on with the clusters it began with. Raises InputError where a split is empty, or
    classes are needed that neither the data nor the recipe gives.
    """
    if not (recipe.uses_classes and recipe.num_clusters):
        classes = classes_of(shards, splits) if recipe.uses_classes else []
        return index_photos(shards, splits, classes, aux), classes
    photos = index_photos(shards, splits, [], aux)
    kept = out is not None and Folder(out).exists(MANIFEST) and Folder(out).exists(KEPT)
    labels = _kept(photos, str(out)) if kept else _found(photos, recipe, recipe.num_clusters)
    return replace(photos, label=labels), [f"cluster {number}" for number in range(recipe.num_clusters)]


def keep(photos: Photos, out: str) -> None:
    """Write down which cluster each photo of its own is in, for a run to go on with."""
    own = zip(photos.ids, photos.label, photos.aux, strict=True)
    found = {name: int(label) for name, label, aux in own if not aux}
    Folder(out).write(KEPT, json.dumps(found, indent=1).encode())


def _kept(photos: Photos, out: str) -> Ints:
    found = json.loads(Folder(out).read(KEPT))
    own = zip(photos.ids, photos.aux, strict=True)
    return np.array([UNKNOWN if aux else found.get(name, UNKNOWN) for name, aux in own], np.int64)


def _found(photos: Photos, recipe: Recipe, count: int) -> Ints:
    labels, own = photos.label.copy(), np.flatnonzero(~photos.aux)
    labels[own] = cluster(_features(photos, own, recipe), count, recipe.seed)
    return labels


def _features(photos: Photos, chosen: Ints, recipe: Recipe) -> Features:
    """What the photo tower sees before it learns, (n, dim - details): not colours, where these lie apart."""
    tower = build(recipe.model, recipe.seed).photo
    features = np.empty((len(chosen), recipe.model.width), np.float32)
    for place in np.unique(photos.place[chosen]):
        here = np.flatnonzero(photos.place[chosen] == place)
        [group] = read_places(photos, [int(place)], ("photo",)).values()
        pictures = [group["photo"][int(row)].as_py() for row in photos.row[chosen[here]]]
        features[here] = embed_photos(tower, pictures)
    return features[:, : recipe.model.dim - recipe.model.appearance_dims]
