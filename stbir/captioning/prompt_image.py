"""Photos as they are sent to a model or shown on a sheet: small JPEGs, written into the text itself."""

import base64
import io
import warnings

from PIL import Image

from stbir.images import open_picture

_QUALITY = 90


def sent(photo: bytes, pixels: int) -> str:
    """A data URI of the photo, upright, on white, its longer side at most `pixels`.

    Raises InputError for what is no picture.
    """
    picture = open_picture(photo, "photo")
    picture.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def size_sent(photo: bytes, pixels: int) -> tuple[int, int]:
    """Width and height of what `sent` would send, from the file's head alone; (0, 0) for no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = Image.open(io.BytesIO(photo)).size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0
    scale = min(1.0, pixels / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
