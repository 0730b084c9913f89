"""Decode images and resize them to the square uint8 arrays that the encoders take.

Images are decoded only here. Conversion to float happens on the device (`model.encoders`).
"""

import functools
import io
import warnings
from dataclasses import dataclass

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from stbir.errors import InputError

Pixels = NDArray[np.uint8]
MAX_PIXELS = 64_000_000
# Formats of photos that their first bytes identify; those of a BMP, `BM`, can be a word.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "GIF", "JPEG2000")
HEAD_BYTES = 64  # enough for `is_image`
_WHITE = 255


@dataclass(frozen=True)
class Geometry:
    """An affine transform: horizontal `flip`, `shift` in fractions of the image size, `rotate` in degrees."""

    flip: bool = False
    scale: float = 1.0
    stretch: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    rotate: float = 0.0


@functools.cache
def register_formats() -> None:
    """Make all formats known to Pillow, with HEIC. Further calls do nothing."""
    Image.init()
    pillow_heif.register_heif_opener()


def is_image(head: bytes) -> bool:
    """Whether the first HEAD_BYTES of a file are those of one of the PHOTO_FORMATS."""
    register_formats()
    return any(name in PHOTO_FORMATS and accept and accept(head) for name, (_, accept) in Image.OPEN.items())


def open_image(data: bytes, name: str = "image", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a PNG, JPEG, WebP, … to RGB. Applies the EXIF orientation and puts transparency on white.

    Raises InputError, naming `name`, if the data is not an image, is truncated, or has more than
    `max_pixels` (checked before pixels are decoded, against decompression bombs).
    """
    register_formats()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        if image.width * image.height > max_pixels:
            size = f"{image.width} x {image.height}"
            raise InputError(f"{name}: {size} exceeds {max_pixels} pixels; shrink it")
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders and EXIF readers raise arbitrary errors on damaged files
        # Pillow's message would contain the memory address of the buffer.
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{name}: not a readable image ({reason}); give PNG, JPEG or WebP") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (_WHITE,) * 4)
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode.startswith("I;16"):  # Pillow would clip these to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def decode_photo(data: bytes, size: int, geometry: Geometry | None = None) -> Pixels:
    """Decode a photo to (3, size, size) uint8."""
    return to_pixels(open_photo(data, size), geometry)


def decode_sketch(data: bytes, size: int, geometry: Geometry | None = None) -> Pixels:
    """Decode a sketch (dark strokes on white) to (1, size, size) uint8."""
    return to_pixels(open_sketch(data, size), geometry)


def resize_photo(image: Image.Image, size: int) -> Pixels:
    """Resize a decoded RGB photo to (3, size, size) uint8. Same result as `decode_photo` of its bytes."""
    return to_pixels(_resize_and_pad(image, size))


def open_photo(data: bytes, size: int) -> Image.Image:
    """Decode a photo to a square RGB image, the input of `to_pixels`."""
    return _resize_and_pad(open_image(data, "photo"), size)


def open_sketch(data: bytes, size: int) -> Image.Image:
    """Decode a sketch to a square greyscale image."""
    return _resize_and_pad(open_image(data, "sketch").convert("L"), size)


def to_pixels(square: Image.Image, geometry: Geometry | None = None) -> Pixels:
    """Transform a copy of a square image; returns (1 or 3, size, size) uint8, channels first."""
    image = square if geometry is None else _transform(square, geometry)
    pixels = np.asarray(image, dtype=np.uint8)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _resize_and_pad(image: Image.Image, size: int) -> Image.Image:
    """Resize to fit a square, keeping the aspect ratio, and pad with white."""
    # ImageOps.pad resizes first: padding a long, thin image to its full square could take gigabytes.
    return ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color=_white(image))


def _transform(image: Image.Image, geometry: Geometry) -> Image.Image:
    if geometry.flip:
        image = ImageOps.mirror(image)
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        _inverse_affine(geometry, image.width),
        Image.Resampling.BILINEAR,
        fillcolor=_white(image),
    )


def _inverse_affine(geometry: Geometry, size: int) -> tuple[float, ...]:
    """Coefficients that map output to input coordinates about the centre, as `Image.transform` takes them."""
    angle = np.deg2rad(geometry.rotate)
    cos, sin = np.cos(angle), np.sin(angle)
    sx, sy = geometry.scale * geometry.stretch, geometry.scale / geometry.stretch
    a, b, d, e = cos / sx, sin / sx, -sin / sy, cos / sy
    centre = size / 2
    dx, dy = geometry.shift[0] * size, geometry.shift[1] * size
    x, y = centre + dx, centre + dy
    return (a, b, centre - a * x - b * y, d, e, centre - d * x - e * y)


def _white(image: Image.Image) -> int | tuple[int, int, int]:
    return _WHITE if image.mode == "L" else (_WHITE,) * 3


def render_strokes(strokes: list[list[tuple[float, float]]], size: int = 256, width: int = 2) -> Image.Image:
    """Draw black lines, `width` pixels thick, on a white square. Points are (x, y) in [0, 1], y down."""
    image = Image.new("L", (size, size), _WHITE)
    draw = ImageDraw.Draw(image)
    for stroke in strokes:
        points = [(x * (size - 1), y * (size - 1)) for x, y in stroke]
        if len(points) == 1:
            points *= 2
        draw.line(points, fill=0, width=width, joint="curve")
    return image


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
