"""Clean training inputs: images and captions without augmentation and noise."""

from collections.abc import Iterator

import numpy as np

from stbir.config import Modality, Recipe
from stbir.data.batch import Batch, collate, decode_batch, read_row_groups
from stbir.data.photo_index import IntArray, PhotoIndex
from stbir.data.sampling import Order, Step, expand_sketches
from stbir.training.gather import own_share


def iter_clean_batches(
    photos: PhotoIndex, chosen: IntArray, modality: Modality, recipe: Recipe
) -> Iterator[Batch]:
    """One modality of the photos `chosen` (n,), a row group at a time; all sketches of a photo.

    The workers share the row groups.
    """
    row_group = photos.row_group[chosen]
    for group in own_share(np.unique(row_group).tolist()):
        members = chosen[row_group == group]
        count = photos.sketch_count[members] if modality == "sketch" else np.ones_like(members)
        photo, sketch = expand_sketches(members, count)
        order = Order(photo, sketch, np.empty((len(photo), 0), np.int64))
        tables = read_row_groups(photos, [group], (modality,))
        yield decode_batch(
            collate(photos, Step(0, 0, 0, order), (modality,), tables),
            sketch=recipe.model.sketch_preprocess,
            photo=recipe.model.photo.preprocess,
            seed=recipe.seed,
        )
