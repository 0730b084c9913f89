"""The only place where images are decoded, and resized to the square uint8 arrays that the encoders take."""

import functools
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from stbir.color import to_srgb
from stbir.errors import ImageTooLargeError, InputError, NoStrokeError
from stbir.sketch_normalization import has_stroke, lay_on_paper, normalize_sketch

Pixels = NDArray[np.uint8]
Resize = Literal["pad", "stretch"]  # to a square: with white margins, or filling it
MAX_PIXELS = 64_000_000
MAX_SIDE = 65_535  # of a JPEG; Pillow takes 8 bytes a row, however narrow the image
# Pillow reads more formats, some of them with other programs: Ghostscript would execute a PostScript file.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "HEIF", "PPM")
QUERY_FORMATS = ("PNG", "JPEG", "WEBP")
HEAD_BYTES = 64  # enough for `is_image`
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (scaled DCT) if its shorter side stays this many times as
# long as needed. The minimum is twice a thumbnail: a photo has the same pixels with and without one.
_DRAFT_FACTOR, _MIN_DRAFT_SIDE = 2, 384
_AMBIGUOUS = ("BMP", "PPM")  # the first bytes of these can be a word
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
    """Whether the first HEAD_BYTES of a file are those of one of the PHOTO_FORMATS but the _AMBIGUOUS."""
    register_formats()
    formats = {*PHOTO_FORMATS} - {*_AMBIGUOUS}
    return any(name in formats and accept and accept(head) for name, (_, accept) in Image.OPEN.items())


def open_image(
    data: bytes,
    name: str = "image",
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] = PHOTO_FORMATS,
    side: int | None = None,
) -> Image.Image:
    """Decode a file of one of `formats` to 8-bit sRGB (mode "RGB"), see `color.to_srgb`.

    side: a resize to `side` pixels a side follows, so a much larger JPEG is decoded at a fraction of it.

    Applies the EXIF orientation and puts transparency on white. Raises InputError, naming `name`, if the data
    is not such an image or is truncated, and ImageTooLargeError for more than `max_pixels`, or more than
    MAX_SIDE on one side: both are checked before pixels are decoded, against decompression bombs.
    """
    return _lay_on(_decode(data, name, max_pixels, formats, side), _WHITE)


def _decode(
    data: bytes, name: str, max_pixels: int, formats: Sequence[str], side: int | None = None
) -> Image.Image:
    """Decode a file to "RGB", or to "RGBA" if it has transparency."""
    register_formats()
    try:
        image = _read_header(data, formats)
        if image.width * image.height > max_pixels or max(image.size) > MAX_SIDE:
            size, most = f"{image.width} x {image.height}", f"{max_pixels} pixels, or {MAX_SIDE} on one side"
            raise ImageTooLargeError(f"{name}: {size} exceeds {most}; shrink it")
        if side is not None:
            _draft(image, side)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return to_srgb(image)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders and EXIF readers raise arbitrary errors on damaged files
        # Pillow's message would contain the memory address of the buffer.
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{name}: not a readable image ({reason}); give PNG, JPEG or WebP") from error


def _draft(image: Image.Image, side: int) -> None:
    """Configure the decoder of a JPEG for a fraction of its size. Other formats have no such decoder."""
    if (fraction := min(image.size) // max(_DRAFT_FACTOR * side, _MIN_DRAFT_SIDE)) > 1:
        image.draft(None, (image.width // fraction, image.height // fraction))


def _read_header(data: bytes, formats: Sequence[str]) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=tuple(formats))


def _lay_on(image: Image.Image, ground: int) -> Image.Image:
    """The image in "RGB"; transparency shows the grey level `ground`."""
    if image.mode == "RGB":
        return image
    paper = Image.new("RGBA", image.size, (ground, ground, ground, 255))
    return Image.alpha_composite(paper, image).convert("RGB")


def decode_photo(data: bytes, size: int, geometry: Geometry | None = None, resize: Resize = "pad") -> Pixels:
    """Decode a photo to (3, size, size) uint8."""
    return to_pixels(open_photo(data, size, resize), geometry)


def decode_sketch(data: bytes, size: int, geometry: Geometry | None = None, resize: Resize = "pad") -> Pixels:
    """Decode a sketch of a data set to (1, size, size) uint8, normalized as `read_sketch` does."""
    return to_pixels(open_sketch(data, size, resize), geometry)


def decode_query_sketch(
    data: bytes, size: int, resize: Resize = "pad", formats: Sequence[str] = QUERY_FORMATS
) -> Pixels:
    """Decode a sketch that somebody searches with, a file of one of `formats`, as `decode_sketch` does.

    Raises InputError as `open_image` does, ImageTooLargeError if memory runs out, and NoStrokeError.
    """
    try:
        return to_pixels(_to_square(require_stroke(read_sketch(data, formats)), size, resize))
    except MemoryError as error:
        raise ImageTooLargeError("sketch: it needs more memory than there is; shrink it") from error


def read_sketch(data: bytes, formats: Sequence[str] = PHOTO_FORMATS) -> Image.Image:
    """Decode a sketch to greyscale ("L"), dark strokes on white (`sketch_normalization`); raises InputError.

    A sketch without a stroke is valid here, see `require_stroke`.
    """
    return normalize_sketch(lay_on_paper(_decode(data, "sketch", MAX_PIXELS, formats)))


def require_stroke(sketch: Image.Image) -> Image.Image:
    """Return the result of `read_sketch` itself. Raises NoStrokeError if it has no stroke."""
    if not has_stroke(sketch):
        raise NoStrokeError("sketch: no stroke on it; draw one")
    return sketch


def resize_photo(image: Image.Image, size: int, resize: Resize = "pad") -> Pixels:
    """Resize a decoded RGB photo to (3, size, size) uint8. As `decode_photo` if opened with `side=size`."""
    return to_pixels(_to_square(image, size, resize))


def open_photo(data: bytes, size: int, resize: Resize = "pad") -> Image.Image:
    """Decode a photo to a square RGB image, the input of `to_pixels`."""
    return _to_square(open_image(data, "photo", side=size), size, resize)


def open_sketch(data: bytes, size: int, resize: Resize = "pad") -> Image.Image:
    """Decode a sketch to a square greyscale image, normalized as `read_sketch` does."""
    return _to_square(read_sketch(data), size, resize)


def to_pixels(square: Image.Image, geometry: Geometry | None = None) -> Pixels:
    """Transform a copy of a square image; returns (1 or 3, size, size) uint8, channels first."""
    image = square if geometry is None else _transform(square, geometry)
    pixels = np.asarray(image)
    # A copy, since an array that views an image is read-only, which torch warns of.
    return np.array(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), np.uint8, order="C")


def _to_square(image: Image.Image, size: int, resize: Resize) -> Image.Image:
    """Resize to fill a square ("stretch"), or to fit it with its aspect ratio and white margins ("pad")."""
    if resize == "stretch":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    # Not ImageOps.pad, which gives a very thin image 0 pixels. Resized first: to pad a long, thin image to
    # its full square could take gigabytes.
    longest = max(image.size)
    width, height = (max(1, round(side / longest * size)) for side in image.size)
    square = Image.new(image.mode, (size, size), _white(image))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(resized, (round((size - width) * 0.5), round((size - height) * 0.5)))
    return square


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


def render_strokes(
    strokes: list[list[tuple[float, float]]],
    size: int = 256,
    width: int = 2,
    greys: Sequence[int] | None = None,
) -> Image.Image:
    """Draw lines, `width` pixels thick, on a white square: black, or of the grey level of each in `greys`.

    Points are (x, y) in [0, 1], y down.
    """
    image = Image.new("L", (size, size), _WHITE)
    draw = ImageDraw.Draw(image)
    for stroke, grey in zip(strokes, greys or [0] * len(strokes), strict=True):
        points = [(x * (size - 1), y * (size - 1)) for x, y in stroke] * (2 if len(stroke) == 1 else 1)
        draw.line(points, fill=grey, width=width, joint="curve")
    return image


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    return encode_as(image, "PNG", optimize=True)


def encode_as(image: Image.Image, form: str, **options: Any) -> bytes:
    """Encode an image in a format of Pillow, with its options for that format."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
