"""Images as people have them (path, URI, bytes, PIL, NumPy, strokes) → encoded images, which are decoded in
one place only (`stbir.images`), so that each form of an image gives the same features."""

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stbir.errors import InputError
from stbir.images import encode_png, render_strokes
from stbir.storage.folder import read_uri

# One image: a path or URI, the bytes of a file, a PIL image, or uint8 (H, W) or (H, W, 1, 3 or 4).
ImageInput = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
# Lines with points (x, y) in [0, 1], y down.
Strokes = Sequence[Sequence[tuple[float, float]] | NDArray[np.floating[Any]]]
SketchInput = ImageInput | Strokes
_CHANNELS = (1, 3, 4)


def photo_files(photos: ImageInput | Sequence[ImageInput]) -> list[bytes]:
    """The encoded images of one photo or many. Raises InputError for any other input."""
    return [_image_file(photo, "photo") for photo in _as_list(photos)]


def sketch_files(sketches: SketchInput | Sequence[SketchInput]) -> list[bytes]:
    """The encoded images of one sketch or many. Raises InputError for any other input."""
    if strokes := _as_strokes(sketches):
        return [_draw(strokes)]
    return [
        _draw(strokes) if (strokes := _as_strokes(each)) else _image_file(each, "sketch")
        for each in _as_list(sketches)
    ]


def as_texts(texts: str | Sequence[str]) -> list[str]:
    """One text or many as a list. Raises InputError for anything else."""
    several = [texts] if isinstance(texts, str) else list(texts)
    for text in several:
        if not isinstance(text, str):
            raise InputError(f"text: {type(text).__name__} is no text; give a string, or a list of strings")
    return several


def _as_list(images: Any) -> list[Any]:
    is_many = isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4)
    return list(images) if is_many else [images]


def _image_file(image: Any, field: str) -> bytes:
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return read_uri(os.fspath(image))
    if isinstance(image, np.ndarray):
        return _encode(_from_array(image, field))
    if isinstance(image, Image.Image):
        return _encode(ImageOps.exif_transpose(image))
    forms = "a path, bytes, a PIL image or a uint8 array" + ", or strokes" * (field == "sketch")
    raise InputError(f"{field}: {type(image).__name__} is no image; give {forms}")


def _from_array(array: NDArray[Any], field: str) -> Image.Image:
    """(H, W) or (H, W, C) → image."""
    shape_is_valid = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    if array.dtype != np.uint8 or not shape_is_valid or not array.size:
        raise InputError(
            f"{field}: array of {array.dtype} and shape {array.shape}; give uint8 (0 … 255) of shape"
            " (H, W), (H, W, 3) or (H, W, 4)"
        )
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _encode(image: Image.Image) -> bytes:
    """The image as uncompressed TIFF, which keeps nearly all modes and the colour profile."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
    buffer = io.BytesIO()
    try:
        image.save(buffer, "TIFF")
    except (OSError, KeyError):  # a mode without a form in TIFF, such as HSV
        image.convert("RGB").save(buffer := io.BytesIO(), "TIFF")
    return buffer.getvalue()


def _as_strokes(value: Any) -> list[NDArray[np.float64]] | None:
    """The strokes (P, 2) of a sketch; None if `value` is something else."""
    if not isinstance(value, list | tuple) or not value:
        return None
    try:
        strokes = [np.asarray(stroke, np.float64) for stroke in value if not isinstance(stroke, str | bytes)]
    except (TypeError, ValueError):
        return None
    are_strokes = len(strokes) == len(value) and all(
        each.ndim == 2 and each.shape[1] == 2 for each in strokes
    )
    return strokes if are_strokes else None


def _draw(strokes: list[NDArray[np.float64]]) -> bytes:
    points = np.concatenate(strokes)
    if not ((points >= 0) & (points <= 1)).all():
        raise InputError("sketch: strokes have points outside 0 … 1; divide them by the size of the canvas")
    return encode_png(render_strokes([[(x, y) for x, y in stroke] for stroke in strokes if len(stroke)]))
