"""Normalization of sketches: any ink on any paper → dark strokes on white, as models are trained on.

A sketch that has this form already is unchanged, bit by bit.
"""

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

# Grey levels, 0 … 255. Marks of less contrast are noise of a camera or a scanner.
MIN_CONTRAST = 24
_FULL_CONTRAST = 224
_WHITE_PAPER, _DARK_INK = 240, 160
_PAPER_RANGE = 64  # how far uneven light may change the paper
_STATISTICS_SIDE = 256  # statistics come from a copy of about this size, whose pixels average out noise
_WHITE, _BLACK = (255,) * 4, (0, 0, 0, 255)
_OPAQUE = 250


def lay_on_paper(image: Image.Image) -> Image.Image:
    """A decoded sketch ("RGB" or "RGBA") without transparency: on white, or on black if its ink is white."""
    if image.mode == "RGB":
        return image
    on_white, on_black = (_lay_on(image, ground) for ground in (_WHITE, _BLACK))
    # Only opaque pixels: the soft edges of a white stroke may be grey.
    opaque = image.getchannel("A").point(lambda alpha: 255 if alpha >= _OPAQUE else 0)
    ink_on_white = Image.composite(on_white, Image.new("RGB", image.size, _WHITE[:3]), opaque)
    return on_black if has_stroke(on_black) and not has_stroke(ink_on_white) else on_white


def normalize_sketch(image: Image.Image) -> Image.Image:
    """An "RGB" sketch in greyscale ("L"), with dark strokes on white.

    Unchanged, except for its colour, is a sketch on white paper with a dark stroke, and one without a stroke.
    """
    grey = image.convert("L")
    if _is_dark_on_white(grey):
        return grey
    small = _reduce(image)
    paper = _fit_paper(small)
    if not _is_visible(_contrast(small, paper)):
        return grey
    contrast = _contrast(image, paper.resize(image.size, Image.Resampling.BILINEAR))
    return contrast.point(_tone_curve(contrast))


def has_stroke(image: Image.Image) -> bool:
    """Whether anything is drawn on a sketch ("RGB" or "L"): marks that differ from its paper."""
    small = _reduce(image)
    return _is_visible(_contrast(small, _fit_paper(small)))


def _lay_on(image: Image.Image, ground: tuple[int, ...]) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def _is_dark_on_white(grey: Image.Image) -> bool:
    [paper] = _paper_color(grey)
    return bool(paper >= _WHITE_PAPER and np.asarray(grey).min() <= _DARK_INK)


def _reduce(image: Image.Image) -> Image.Image:
    width, height = (-(-side // _STATISTICS_SIDE) for side in image.size)
    return image.reduce((width, height))


def _paper_color(image: Image.Image) -> tuple[int, ...]:
    """The median of the border or that of all pixels, whichever is lighter; a level per channel.

    A frame covers the border, and a filled figure most of the pixels; neither makes paper dark.
    """
    bands = image.split()
    return max((tuple(map(_median, bands)), tuple(_median(_border(band)) for band in bands)), key=sum)


def _border(band: Image.Image) -> Image.Image:
    """The outermost pixels of an image of one channel, in one row."""
    pixels_HW = np.asarray(band)
    return Image.fromarray(np.concatenate([pixels_HW[[0, -1]].ravel(), pixels_HW[:, [0, -1]].ravel()])[None])


def _median(band: Image.Image, highest: int = 255) -> int:
    """The median of the levels up to `highest`; the upper one of two, since paper has one of both."""
    counts = np.cumsum(band.histogram()[: highest + 1])
    return int(np.searchsorted(counts, counts[-1] / 2, side="right"))


def _fit_paper(small: Image.Image) -> Image.Image:
    """The paper without the drawing, an image of the same size: of one colour, or unevenly lit."""
    paper = Image.new(small.mode, small.size, _paper_color(small))
    for tolerance in (_PAPER_RANGE, MIN_CONTRAST):
        contrast = _contrast(small, paper)
        if _median(contrast, tolerance) == 0:
            break  # paper of one colour
        paper = _fit_light(np.asarray(small), np.asarray(contrast) <= tolerance)
    return paper


def _fit_light(pixels: NDArray[np.uint8], is_paper_HW: NDArray[np.bool_]) -> Image.Image:
    """The paper as a quadratic function of the position, fitted to the pixels that show it, (H, W[, 3])."""
    terms_HWK = _quadratic_terms(*is_paper_HW.shape)
    weights, *_ = np.linalg.lstsq(terms_HWK[is_paper_HW], pixels[is_paper_HW], rcond=None)
    return Image.fromarray((terms_HWK @ weights).round().clip(0, 255).astype(np.uint8))


def _quadratic_terms(height: int, width: int) -> NDArray[np.float64]:
    """1, x, y, x², xy, y² of each pixel, (H, W, 6): light falls off smoothly."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2)


def _contrast(image: Image.Image, paper: Image.Image) -> Image.Image:
    """The largest difference of the channels, "L": linear in how much ink covers a pixel."""
    return functools.reduce(ImageChops.lighter, ImageChops.difference(image, paper).split())


def _is_visible(contrast: Image.Image) -> bool:
    """Whether the highest contrast exceeds MIN_CONTRAST and the noise of the paper."""
    return bool(np.asarray(contrast).max() >= max(MIN_CONTRAST, 8 * _noise(contrast)))


def _noise(contrast: Image.Image) -> int:
    """The median contrast of the paper: of the border or of all pixels, see `_paper_color`."""
    return min(_median(contrast), _median(_border(contrast)))


def _tone_curve(contrast: Image.Image) -> list[int]:
    """Maps contrast to grey: noise to white, 95 % of the ink's highest contrasts to black, linear between."""
    noise = 3 * _noise(contrast)
    ink = np.array(contrast.histogram())
    ink[: max(MIN_CONTRAST, noise + 1)] = 0
    black = int(np.searchsorted(ink.cumsum(), 0.95 * ink.sum()))
    black = 255 if black >= _FULL_CONTRAST else black  # the inverse of a sketch has its grey levels
    curve = 255 - 255 * (np.arange(256) - noise) / (black - noise)
    return [int(level) for level in curve.round().clip(0, 255)]
