"""From encoded bytes to uint8 pixels of the size a tower wants. Sketches and photos apart.

The only place pictures are decoded. Floats are made later, on the device (`model.encoders`).
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from stbir.errors import InputError

Pixels = NDArray[np.uint8]
MAX_PIXELS = 64_000_000
_WHITE = 255


@dataclass(frozen=True)
class Geometry:
    """A random affine view: shares of the picture's size, degrees; `flip` mirrors left and right."""

    flip: bool = False
    scale: float = 1.0
    stretch: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    rotate: float = 0.0


def open_picture(data: bytes, name: str = "picture", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a PNG, JPEG, WebP, … whole, upright, alpha laid on white, as RGB.

    Raises InputError, naming `name`, for what is no picture, is cut short, or exceeds `max_pixels`
    (checked before any pixel is decoded: a picture bomb costs nothing).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
        if picture.width * picture.height > max_pixels:
            size = f"{picture.width} x {picture.height}"
            raise InputError(f"{name}: {size} exceeds {max_pixels} pixels; shrink it")
        picture.load()
        return _on_white(ImageOps.exif_transpose(picture))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders and EXIF readers raise what they please on damaged files
        # Pillow names the buffer, and where it lies in memory, in place of a file.
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{name}: not a readable picture ({reason}); give PNG, JPEG or WebP") from error


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (_WHITE,) * 4)
        return Image.alpha_composite(white, rgba).convert("RGB")
    if picture.mode.startswith("I;16"):  # Pillow would clip these to white
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGB")


def photo_pixels(data: bytes, size: int, geometry: Geometry | None = None) -> Pixels:
    """An encoded photo as (3, size, size) uint8."""
    return viewed(photo_square(data, size), geometry)


def sketch_pixels(data: bytes, size: int, geometry: Geometry | None = None) -> Pixels:
    """An encoded sketch (dark strokes on white) as (1, size, size) uint8 grey."""
    return viewed(sketch_square(data, size), geometry)


def square_pixels(picture: Image.Image, size: int) -> Pixels:
    """A decoded RGB photo as `photo_pixels` gives it from its bytes."""
    return _channels_first(_square(picture, size))


def photo_square(data: bytes, size: int) -> Image.Image:
    """An encoded photo, decoded, as an RGB square: what all its views are made from."""
    return _square(open_picture(data, "photo"), size)


def sketch_square(data: bytes, size: int) -> Image.Image:
    """An encoded sketch, decoded, as a grey square."""
    return _square(open_picture(data, "sketch").convert("L"), size)


def viewed(square: Image.Image, geometry: Geometry | None) -> Pixels:
    """A view of a square as (1 or 3, size, size) uint8; the square stays as it is."""
    return _channels_first(square if geometry is None else _moved(square, geometry))


def _square(picture: Image.Image, size: int) -> Image.Image:
    """Resize into a square and pad with white: both kinds of picture show one object on a plain ground."""
    # Shrunk first: padding a long, thin picture to its full square could take gigabytes.
    return ImageOps.pad(picture, (size, size), Image.Resampling.BICUBIC, color=_white(picture))


def _moved(picture: Image.Image, geometry: Geometry) -> Image.Image:
    if geometry.flip:
        picture = ImageOps.mirror(picture)
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        _inverse_affine(geometry, picture.width),
        Image.Resampling.BILINEAR,
        fillcolor=_white(picture),
    )


def _inverse_affine(geometry: Geometry, size: int) -> tuple[float, ...]:
    """Output → input coordinates about the centre, as PIL wants them."""
    angle = np.deg2rad(geometry.rotate)
    cos, sin = np.cos(angle), np.sin(angle)
    sx, sy = geometry.scale * geometry.stretch, geometry.scale / geometry.stretch
    a, b, d, e = cos / sx, sin / sx, -sin / sy, cos / sy
    centre = size / 2
    dx, dy = geometry.shift[0] * size, geometry.shift[1] * size
    x, y = centre + dx, centre + dy
    return (a, b, centre - a * x - b * y, d, e, centre - d * x - e * y)


def _white(picture: Image.Image) -> int | tuple[int, int, int]:
    return _WHITE if picture.mode == "L" else (_WHITE,) * 3


def _channels_first(picture: Image.Image) -> Pixels:
    pixels = np.asarray(picture, dtype=np.uint8)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def render_strokes(strokes: list[list[tuple[float, float]]], size: int = 256, width: int = 2) -> Image.Image:
    """Strokes in [0, 1] x [0, 1] (y down) as black lines `width` pixels thick on white, `size` square."""
    picture = Image.new("L", (size, size), _WHITE)
    draw = ImageDraw.Draw(picture)
    for stroke in strokes:
        points = [(x * (size - 1), y * (size - 1)) for x, y in stroke]
        if len(points) == 1:
            points *= 2
        draw.line(points, fill=0, width=width, joint="curve")
    return picture


def encode_png(picture: Image.Image) -> bytes:
    """The picture as PNG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
