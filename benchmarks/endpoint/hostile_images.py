"""Images of hostile requests: small files of many pixels, broken files, and images without a stroke."""

import struct
import zlib

import numpy as np
from PIL import Image

from stbir.images import encode_as

Rng = np.random.Generator
_ACCEPTED = ("PNG", "JPEG", "WEBP")  # stbir.images.QUERY_FORMATS
_REFUSED = ("EPS", "TIFF", "BMP", "GIF", "PCX", "ICO")


def pixel_bombs(rng: Rng) -> list[bytes]:
    """Small files that decode to 16 megapixels and more."""
    return [
        encode_as(Image.new("L", (4096, 4096)), "WEBP", lossless=True),  # 676 bytes
        encode_as(Image.new("1", (5000, 4000)), "PNG"),
        encode_as(Image.new("L", (4096, 4096), int(rng.integers(256))), "JPEG", quality=5),
        _declare_size(encode_as(Image.new("1", (9, 9)), "PNG"), 60_000, 60_000),
    ]


def broken_images(rng: Rng) -> list[bytes]:
    """Truncated and overwritten images, formats that are not accepted, and other bytes."""
    noise = Image.fromarray(rng.integers(0, 256, (96, 96), np.uint8))
    png = encode_as(noise, "PNG")
    return [
        *(encode_as(noise, name)[:length] for name in _ACCEPTED for length in (60, 1000)),
        *(encode_as(noise, name) for name in _REFUSED),
        png[:200] + rng.bytes(50) + png[250:],
        *(b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n", rng.bytes(9999)),
    ]


def blank_images(rng: Rng) -> list[bytes]:
    """PNGs of one color, without color, and of a gradient."""
    sizes, grey = ((1, 1), (256, 256), (2000, 2000), (4000, 1), (1, 4000)), int(rng.integers(256))
    images = [Image.new("L", size, grey) for size in sizes]
    images += [Image.new("RGBA", (256, 256)), Image.linear_gradient("L")]
    return [encode_as(image, "PNG") for image in images]


def _declare_size(png: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header, the chunk from byte 12 to 29."""
    header = png[12:16] + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
