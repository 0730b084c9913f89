"""Small JPEGs of photos and sketches, for the eye only."""

import io

from PIL import Image

from stbir.images import open_picture

SIDE = 192
_QUALITY = 82


def thumbnail(data: bytes, side: int = SIDE) -> bytes:
    """The picture as a JPEG of at most `side` pixels a side. Raises InputError for what is no picture."""
    return shrunk(open_picture(data), side)


def shrunk(picture: Image.Image, side: int = SIDE) -> bytes:
    """The same of a picture that is decoded already; afterwards it is as small as its thumbnail."""
    # A third of Lanczos's time, which would be half of all that decoding costs.
    picture.thumbnail((side, side), Image.Resampling.HAMMING)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
