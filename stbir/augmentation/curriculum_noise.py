"""Noise of the curriculum (module 3 of arXiv 2604.15735): one chain for photos, one for sketches.

Each parameter is lo + (hi - lo)·strength, with the ranges of the reference recipe, [A] in docs/method.md.
Word dropout of captions has a probability of its own.
"""

import io

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from stbir.images import Pixels

_FULL_SCALE = 255
PHOTO_NOISE_SD = (0.0, 0.12)  # of full scale
PHOTO_BLUR = (0.0, 1.3)  # pixels
PHOTO_JPEG = (85, 45)  # quality
PHOTO_CUT_OUT = (0.05, 0.12)  # fraction of the area, black
SKETCH_NOISE_SD = (0.0, 0.18)
SKETCH_BLUR = (0.0, 0.6)
SKETCH_CONTRAST = (0.85, 1.2)
SKETCH_CUT_OUT = (0.02, 0.05)  # white


def apply_word_dropout(text: str, probability: float, rng: np.random.Generator) -> str:
    """Drop each word with the given probability; if all are dropped, the first one stays."""
    tokens = text.split()
    draws = rng.random(len(tokens))
    remaining = [token for token, draw in zip(tokens, draws, strict=True) if draw >= probability]
    return " ".join(remaining or tokens[:1])


def add_photo_noise(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Add noise, blur, JPEG artefacts and one black cut-out to (3, H, W) uint8; `strength` in [0, 1]."""
    noisy = _add_gaussian(pixels, _interpolate(PHOTO_NOISE_SD, strength), rng)
    image = Image.fromarray(noisy.transpose(1, 2, 0))
    image = image.filter(ImageFilter.GaussianBlur(_interpolate(PHOTO_BLUR, strength)))
    image = _compress(image, round(_interpolate(PHOTO_JPEG, strength)))
    out = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    return _cut_out(out, _interpolate(PHOTO_CUT_OUT, strength), 0, rng)


def add_sketch_noise(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Add noise, blur, a contrast change and one white cut-out to (1, H, W) uint8; `strength` in [0, 1]."""
    noisy = _add_gaussian(pixels, _interpolate(SKETCH_NOISE_SD, strength), rng)
    image = Image.fromarray(noisy[0])
    image = image.filter(ImageFilter.GaussianBlur(_interpolate(SKETCH_BLUR, strength)))
    image = ImageEnhance.Contrast(image).enhance(_interpolate(SKETCH_CONTRAST, strength))
    return _cut_out(np.array(image)[None], _interpolate(SKETCH_CUT_OUT, strength), _FULL_SCALE, rng)


def _interpolate(bounds: tuple[float, float], strength: float) -> float:
    low, high = bounds
    return low + (high - low) * strength


def _add_gaussian(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    noise = rng.standard_normal(pixels.shape, np.float32) * (deviation * _FULL_SCALE)
    return np.clip(pixels + noise, 0, _FULL_SCALE).astype(np.uint8)


def _compress(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _cut_out(pixels: Pixels, area: float, value: int, rng: np.random.Generator) -> Pixels:
    """Fill one random square inside the image; `area` is its fraction of the image area."""
    _, height, width = pixels.shape
    side = max(1, round((area * height * width) ** 0.5))
    top = rng.integers(0, max(1, height - side + 1))
    left = rng.integers(0, max(1, width - side + 1))
    out = pixels.copy()
    out[:, top : top + side, left : left + side] = value
    return out
