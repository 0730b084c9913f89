"""Random geometry of training images: of a sample's sketch and photo, and of further views of them."""

from dataclasses import replace

import numpy as np

from stbir.config import MODALITY_OF, Augmentation, View
from stbir.images import Geometry


def sample_geometry(
    augment: Augmentation | None, rng: np.random.Generator
) -> tuple[Geometry | None, Geometry | None]:
    """Random geometry of the sketch and of the photo: flipped together, otherwise independent."""
    if augment is None:
        return None, None
    flip = bool(augment.flip and rng.random() < 0.5)
    return _sample(augment, 1.0, flip, rng), _sample(augment, augment.photo_ratio, flip, rng)


def view_geometry(
    view: View,
    sample: tuple[Geometry | None, Geometry | None],
    augment: Augmentation | None,
    rng: np.random.Generator,
) -> Geometry | None:
    """Geometry of a view of a sample whose sketch and photo have the geometry `sample`.

    A flipped view is the mirror image. Any other has random geometry of its own, at the full strength, and
    the sample's flip: left and right stay apart, as between sketch and photo.
    """
    base = sample[0] if MODALITY_OF[view] == "sketch" else sample[1]
    if view in ("flipped_sketch", "flipped_photo"):
        return replace(base or Geometry(), flip=not (base and base.flip))
    return None if augment is None else _sample(augment, 1.0, bool(base and base.flip), rng)


def _sample(augment: Augmentation, ratio: float, flip: bool, rng: np.random.Generator) -> Geometry:
    scale, stretch, dx, dy, angle = rng.uniform(-1, 1, 5) * ratio
    return Geometry(
        flip=flip,
        scale=1 + augment.scale * scale,
        stretch=1 + augment.scale / 2 * stretch,
        shift=(augment.shift * dx, augment.shift * dy),
        rotate=augment.rotate * angle,
    )
