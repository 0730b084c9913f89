"""Corruption of queries at graded severity: the sketches and the caption of a row of SHARDS.

Severity is in [0, 1]; 0 is the identity. With the same rng, a higher severity extends the corruption of a
lower one: a stroke missing at "light" is missing at "heavy" too. A curve over LEVELS therefore compares the
same corruption of each query.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast

import numpy as np
from PIL import Image

from stbir.augmentation.sketch_corruption import SKETCH_CORRUPTIONS, SketchCorruption
from stbir.augmentation.text_corruption import TEXT_CORRUPTIONS, TextCorruption
from stbir.errors import InputError
from stbir.images import Pixels, encode_png, read_sketch

Level = Literal["none", "light", "medium", "heavy"]
LEVELS: dict[Level, float] = {"none": 0.0, "light": 1 / 3, "medium": 2 / 3, "heavy": 1.0}
MAX_SIDE_PIXELS = 1024  # encoders take fewer, and the run time of a corruption grows with the pixels
Row = TypeVar("Row", bound=Mapping[str, Any])
Name = TypeVar("Name", bound=str)
T = TypeVar("T")


def corrupt_row(row: Row, severity: float, seed: int) -> Row:
    """Corrupt each sketch and the text of a row, each in one way drawn at random.

    The rng depends only on `seed`, the photo id and the sketch number, not on other rows.
    Raises InputError for a severity outside [0, 1], a negative seed, or a sketch that does not decode.
    """
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")
    photo_hash = zlib.crc32(row["photo_id"].encode())
    rngs = [np.random.default_rng((seed, photo_hash, number)) for number in range(1 + len(row["sketches"]))]
    pairs = zip(row["sketches"], rngs[1:], strict=True)
    sketches = [corrupt_encoded_sketch(data, severity, rng) for data, rng in pairs]
    text = corrupt_text(row["text"], severity, rngs[0]) if row["text"] else row["text"]
    return cast(Row, {**row, "sketches": sketches, "text": text})


def corrupt_encoded_sketch(
    data: bytes, severity: float, rng: np.random.Generator, kind: SketchCorruption | None = None
) -> bytes:
    """Corrupt an encoded sketch; returns a greyscale PNG of at most MAX_SIDE_PIXELS per side.

    Severity 0 returns `data` itself. Raises InputError as `corrupt_sketch` does, and for undecodable data.
    """
    _check_severity(severity)
    if severity == 0:
        return data
    image = read_sketch(data)
    image.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    return encode_png(Image.fromarray(corrupt_sketch(np.asarray(image), severity, rng, kind)))


def corrupt_sketch(
    pixels: Pixels, severity: float, rng: np.random.Generator, kind: SketchCorruption | None = None
) -> Pixels:
    """Corrupt a sketch, (H, W) or (1, H, W) uint8, dark on white. Draws the kind from `rng` if it is None.

    Raises InputError for a severity outside [0, 1] or an unknown kind.
    """
    corrupt = _choose(SKETCH_CORRUPTIONS, kind, severity, rng)
    if severity == 0:
        return pixels.copy()
    return corrupt(pixels.reshape(pixels.shape[-2:]), severity, rng).reshape(pixels.shape)


def corrupt_text(
    text: str, severity: float, rng: np.random.Generator, kind: TextCorruption | None = None
) -> str:
    """Corrupt a caption `colour material item, detail[, detail]`. Draws the kind from `rng` if it is None.

    Raises InputError for a severity outside [0, 1] or an unknown kind.
    """
    corrupt = _choose(TEXT_CORRUPTIONS, kind, severity, rng)
    return text if severity == 0 else corrupt(text, severity, rng)


def _check_severity(severity: float) -> None:
    if not 0 <= severity <= 1:
        raise InputError(f"severity: {severity} is not between 0 and 1")


def _choose(kinds: dict[Name, T], kind: Name | None, severity: float, rng: np.random.Generator) -> T:
    """Return the corruption of the given kind, or a random one. Raises InputError for invalid arguments."""
    _check_severity(severity)
    if kind is not None and kind not in kinds:
        raise InputError(f"kind: {kind!r} is not one of {', '.join(kinds)}")
    # Always draw, so that the rng continues the same whether the kind is given or not.
    drawn = list(kinds)[rng.integers(len(kinds))]
    return kinds[drawn if kind is None else kind]
