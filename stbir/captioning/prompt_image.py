"""Small JPEGs of photos as data URIs, for requests to a model and for the review sheet."""

import base64
import io
import warnings

from PIL import Image

from stbir.images import PHOTO_FORMATS, encode_as, open_image

_QUALITY = 90


def encode_data_uri(photo: bytes, max_side: int) -> str:
    """Encode a photo as a data URI; the longer side has at most `max_side` pixels.

    Raises InputError if the photo does not decode.
    """
    image = open_image(photo, "photo")
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return "data:image/jpeg;base64," + base64.b64encode(encode_as(image, "JPEG", quality=_QUALITY)).decode()


def resized_size(photo: bytes, max_side: int) -> tuple[int, int]:
    """Return the (width, height) of `encode_data_uri`, from the file header; (0, 0) if it is not an image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = Image.open(io.BytesIO(photo), formats=PHOTO_FORMATS).size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
