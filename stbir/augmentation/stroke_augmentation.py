"""Augmentation of sketches whose strokes are known: drop, order, jitter, line width and style.

As in Yu et al., Sketch-a-Net (IJCV 2017), section 3.3: strokes are removed rather the later they were drawn,
and deformed. Lengths are shares of the side of the image.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stbir.images import render_strokes

Floats = NDArray[np.floating]
MAX_GREY = 160  # of the lightest line of a pencil
_SUPERSAMPLING = 4  # Pillow draws lines without antialiasing


def draw_augmented(
    strokes: list[Floats],
    size: int,
    rng: np.random.Generator,
    *,
    drop: float,
    reorder: float,
    jitter: float,
    width: tuple[float, float],
    pencil: float,
) -> Image.Image:
    """Draw strokes, each (P, 2) in [0, 1], on a white square of `size` pixels, with random changes.

    drop: the largest share of the strokes that is left out; at least one remains. Those drawn last go first,
    or with probability `reorder` those of a random order. jitter: standard deviation of a stroke's position.
    width: range of the width of all lines. pencil: probability that each line has a grey level of its own.
    """
    remaining = _drop(strokes, drop * rng.random(), rng.random() < reorder, rng)
    moved = [stroke + rng.normal(0, jitter, 2) for stroke in remaining]
    line_width = rng.uniform(*width)
    is_pencil = rng.random() < pencil
    greys = [int(rng.integers(MAX_GREY + 1)) if is_pencil else 0 for _ in moved]
    side = size * _SUPERSAMPLING
    points = [[(float(x), float(y)) for x, y in stroke] for stroke in moved]
    return render_strokes(points, side, max(1, round(line_width * side)), greys).reduce(_SUPERSAMPLING)


def _drop(strokes: list[Floats], share: float, reorder: bool, rng: np.random.Generator) -> list[Floats]:
    order = rng.permutation(len(strokes)) if reorder else np.arange(len(strokes))
    num_remaining = max(1, len(strokes) - int(share * len(strokes)))
    return [strokes[number] for number in order[:num_remaining]]
