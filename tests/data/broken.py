"""Damaged images of eight kinds. A gallery must contain none of them."""

import io
import zlib

import numpy as np
from PIL import Image

from tests.data.image_files import png


def jpeg(seed: int, side: int = 48) -> bytes:
    """A small JPEG, different for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


def _decompression_bomb() -> bytes:
    """A PNG whose header declares 40000 x 40000 pixels."""
    data = bytearray(png())
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def broken_images() -> dict[str, bytes]:
    """Kind of damage → bytes."""
    valid = jpeg(0)
    crc = bytearray(png((9, 8, 7), size=(30, 30)))
    crc[45] ^= 0xFF
    return {
        "empty": b"",
        "text": b"not a picture",
        "html": b"<html><body>404 Not Found</body></html>",
        "cut": valid[: len(valid) // 2],
        "header": b"\0" * 20 + valid[20:],
        "garbage": np.random.default_rng(0).bytes(500),
        "checksum": bytes(crc),
        "huge": _decompression_bomb(),
    }
