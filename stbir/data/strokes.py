"""The strokes of a sketch as bytes: an .npy file of points (N, 3), float32.

x and y are shares of a square canvas, y down; the third is 1 at the last point of a stroke, else 0.
"""

import io
import zipfile

import numpy as np
from numpy.typing import NDArray

from stbir.errors import InputError

Points = NDArray[np.float32]
QMUL_CANVAS = 256.0  # pixels, of the published coordinates


def encode_strokes(points_N3: Points) -> bytes:
    """Points as bytes. Raises InputError for another shape, no point, and points outside the canvas."""
    if points_N3.ndim != 2 or points_N3.shape[1] != 3 or not len(points_N3):
        raise InputError(
            f"points of shape {points_N3.shape}; give (N, 3): x, y, and 1 at the end of a stroke"
        )
    # A comparison with NaN is false.
    if not ((points_N3 >= 0) & (points_N3 <= 1)).all():
        raise InputError("points outside the canvas, or not numbers")
    buffer = io.BytesIO()
    np.save(buffer, points_N3.astype("<f4"), allow_pickle=False)
    return buffer.getvalue()


def is_strokes(data: bytes) -> bool:
    """Whether the bytes of a sketch are strokes, not an image."""
    return data.startswith(np.lib.format.MAGIC_PREFIX)


def decode_strokes(data: bytes) -> list[Points]:
    """The points (P, 2) of each stroke, in the order in which they were drawn."""
    points_N3: Points = np.load(io.BytesIO(data), allow_pickle=False)
    ends = np.flatnonzero(points_N3[:, 2]) + 1
    return [stroke for stroke in np.split(points_N3[:, :2], ends) if len(stroke)]


def read_qmul_strokes(data: bytes, name: str) -> dict[str, bytes]:
    """The strokes of each sketch in QMUL's coordinate file, an .npz with an array (N, 3) a sketch.

    x and y are in 0…256. Raises InputError that names the file and the sketch.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key: np.asarray(file[key], np.float32) for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name}: not an .npz of numbers ({reason}); remove it or download it again"
        ) from error
    return {key: _encode_qmul(points, f"{name}: {key}") for key, points in arrays.items()}


def _scaled(points_N3: Points) -> Points:
    """Another shape is refused when it is encoded."""
    if points_N3.shape[1:] == (3,):
        points_N3[:, :2] /= QMUL_CANVAS
    return points_N3


def _encode_qmul(points_N3: Points, name: str) -> bytes:
    try:
        return encode_strokes(_scaled(points_N3))
    except InputError as error:
        raise InputError(f"{name}: {error}; remove the sketch from the file") from error
