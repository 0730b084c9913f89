"""The curriculum's noise (module 3 of arXiv 2604.15735): one chain for photos, one for sketches.

Every value is lo + (hi - lo)·strength with the ranges of the reference recipe, [A] in docs/method.md.
Words of a caption go by a share of their own.
"""

import io

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from stbir.images import Pixels

_FULL_SCALE = 255
PHOTO_NOISE_SD = (0.0, 0.12)  # of full scale
PHOTO_BLUR = (0.0, 1.3)  # pixels
PHOTO_JPEG = (85, 45)  # quality
PHOTO_CUT_OUT = (0.05, 0.12)  # share of the area, black
SKETCH_NOISE_SD = (0.0, 0.18)
SKETCH_BLUR = (0.0, 0.6)
SKETCH_CONTRAST = (0.85, 1.2)
SKETCH_CUT_OUT = (0.02, 0.05)  # white


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """The text without some of its words, each gone with probability `share`; one stays in any case."""
    words = text.split()
    kept = [word for word, dice in zip(words, rng.random(len(words)), strict=True) if dice >= share]
    return " ".join(kept or words[:1])


def corrupt_photo(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Noise, blur, JPEG, one black cut-out. (3, H, W) uint8 → the same; `strength` in [0, 1]."""
    noisy = _gaussian(pixels, _between(PHOTO_NOISE_SD, strength), rng)
    picture = Image.fromarray(noisy.transpose(1, 2, 0))
    picture = picture.filter(ImageFilter.GaussianBlur(_between(PHOTO_BLUR, strength)))
    picture = _jpeg(picture, round(_between(PHOTO_JPEG, strength)))
    out = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
    return _cut_out(out, _between(PHOTO_CUT_OUT, strength), 0, rng)


def corrupt_sketch(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Noise, blur, contrast, one white cut-out. (1, H, W) uint8 → the same; `strength` in [0, 1]."""
    noisy = _gaussian(pixels, _between(SKETCH_NOISE_SD, strength), rng)
    picture = Image.fromarray(noisy[0])
    picture = picture.filter(ImageFilter.GaussianBlur(_between(SKETCH_BLUR, strength)))
    picture = ImageEnhance.Contrast(picture).enhance(_between(SKETCH_CONTRAST, strength))
    return _cut_out(np.array(picture)[None], _between(SKETCH_CUT_OUT, strength), _FULL_SCALE, rng)


def _between(bounds: tuple[float, float], strength: float) -> float:
    low, high = bounds
    return low + (high - low) * strength


def _gaussian(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    noise = rng.standard_normal(pixels.shape, np.float32) * (deviation * _FULL_SCALE)
    return np.clip(pixels + noise, 0, _FULL_SCALE).astype(np.uint8)


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _cut_out(pixels: Pixels, area: float, value: int, rng: np.random.Generator) -> Pixels:
    """Fill one square of the given share of the area, wholly inside the picture."""
    _, height, width = pixels.shape
    side = max(1, round((area * height * width) ** 0.5))
    top = rng.integers(0, max(1, height - side + 1))
    left = rng.integers(0, max(1, width - side + 1))
    out = pixels.copy()
    out[:, top : top + side, left : left + side] = value
    return out
