"""Clean training inputs: images and captions without augmentation and noise."""

import numpy as np

from stbir.config import Modality, Recipe
from stbir.data.batch import Batch, collate, decode_batch, read_row_groups
from stbir.data.photo_index import IntArray, PhotoIndex
from stbir.data.sampling import Order, Step, expand_sketches


def decode_row_group(photos: PhotoIndex, members: IntArray, modality: Modality, recipe: Recipe) -> Batch:
    """One modality of the photos `members` (n,) of one row group; all sketches of a photo."""
    count = photos.sketch_count[members] if modality == "sketch" else np.ones_like(members)
    photo, sketch = expand_sketches(members, count)
    order = Order(photo, sketch, np.empty((len(photo), 0), np.int64))
    tables = read_row_groups(photos, [int(photos.row_group[members[0]])], (modality,))
    return decode_batch(
        collate(photos, Step(0, 0, 0, order), (modality,), tables),
        sketch=recipe.model.sketch_preprocess,
        photo=recipe.model.photo.preprocess,
        seed=recipe.seed,
    )
