"""What a poor query looks like, in grades: a row of SHARDS with its sketches and its caption distorted.

Severity is in [0, 1]; 0 is the identity. With the same dice a higher severity does more of the same: what is
gone at light is gone at heavy too. So a curve over LEVELS follows each query instead of comparing accidents.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast

import numpy as np
from PIL import Image

from stbir.augmentation.sketch_corruption import SKETCH_DISTORTIONS, SketchDistortion
from stbir.augmentation.text_corruption import TEXT_DISTORTIONS, TextDistortion
from stbir.errors import InputError
from stbir.images import Pixels, encode_png, open_picture

Level = Literal["none", "light", "medium", "heavy"]
LEVELS: dict[Level, float] = {"none": 0.0, "light": 1 / 3, "medium": 2 / 3, "heavy": 1.0}
MOST_SIDE = 1024  # pixels; towers see fewer, and a distortion takes time by the pixel
Row = TypeVar("Row", bound=Mapping[str, Any])
Name = TypeVar("Name", bound=str)
Found = TypeVar("Found")


def distorted(row: Row, severity: float, seed: int) -> Row:
    """The row with each of its sketches, and its text, distorted in one way drawn for it.

    Dice hang on `seed`, the photo's name and the sketch's number: the other rows make no difference.
    Raises InputError for a severity outside [0, 1], a negative seed, and what is no picture.
    """
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")
    name = zlib.crc32(row["photo_id"].encode())
    dice = [np.random.default_rng((seed, name, number)) for number in range(1 + len(row["sketches"]))]
    sketches = [
        distort_encoded(data, severity, rng) for data, rng in zip(row["sketches"], dice[1:], strict=True)
    ]
    text = distort_text(row["text"], severity, dice[0]) if row["text"] else row["text"]
    return cast(Row, {**row, "sketches": sketches, "text": text})


def distort_encoded(
    data: bytes, severity: float, rng: np.random.Generator, kind: SketchDistortion | None = None
) -> bytes:
    """An encoded sketch → a grey PNG, at most MOST_SIDE on a side; at severity 0 the very bytes.

    Raises InputError as `distort_sketch` does, and for what is no picture.
    """
    _check_severity(severity)
    if severity == 0:
        return data
    picture = open_picture(data, "sketch").convert("L")
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    return encode_png(Image.fromarray(distort_sketch(np.asarray(picture), severity, rng, kind)))


def distort_sketch(
    pixels: Pixels, severity: float, rng: np.random.Generator, kind: SketchDistortion | None = None
) -> Pixels:
    """A sketch, (H, W) or (1, H, W) uint8, dark on white → the same. Without `kind`, `rng` draws one.

    Raises InputError for a severity outside [0, 1] or an unknown kind.
    """
    distort = _one(SKETCH_DISTORTIONS, kind, severity, rng)
    if severity == 0:
        return pixels.copy()
    return distort(pixels.reshape(pixels.shape[-2:]), severity, rng).reshape(pixels.shape)


def distort_text(
    text: str, severity: float, rng: np.random.Generator, kind: TextDistortion | None = None
) -> str:
    """A caption `colour material item, detail[, detail]` → a poorer one. Without `kind`, `rng` draws one.

    Raises InputError for a severity outside [0, 1] or an unknown kind.
    """
    distort = _one(TEXT_DISTORTIONS, kind, severity, rng)
    return text if severity == 0 else distort(text, severity, rng)


def _check_severity(severity: float) -> None:
    if not 0 <= severity <= 1:
        raise InputError(f"severity: {severity} is not between 0 and 1")


def _one(kinds: dict[Name, Found], kind: Name | None, severity: float, rng: np.random.Generator) -> Found:
    """The distortion asked for, or one that `rng` draws, once it is sure that both arguments make sense."""
    _check_severity(severity)
    if kind is not None and kind not in kinds:
        raise InputError(f"kind: {kind!r} is not one of {', '.join(kinds)}")
    drawn = list(kinds)[rng.integers(len(kinds))]  # also where it is given: the dice that follow are the same
    return kinds[drawn if kind is None else kind]
