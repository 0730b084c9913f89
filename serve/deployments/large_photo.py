"""Photos of the gallery enlarged: the original, reduced for a screen, and its page on the web."""

import logging
from typing import Any
from urllib.parse import quote

from serve.messages import LargePhoto
from stbir.catalogue.origin import photo_uri
from stbir.gallery.gallery import Gallery
from stbir.gallery.thumbnail import thumbnail
from stbir.storage.fetch import DEFAULT_SCHEMES, MAX_BYTES, fetch

log = logging.getLogger(__name__)
MAX_SIDE = 1600  # pixels
_TIMEOUT_S = 4.0  # to read an original; less than the deadline of a request
_LINK_COLUMNS = ("link", "uri")  # of the catalogue, by preference
_URI_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"  # of RFC 3986, beside letters, digits, "-", "." and "_"


def large_photo(gallery: Gallery, photo_id: str) -> LargePhoto:
    """A photo with at most MAX_SIDE pixels a side as JPEG, without metadata.

    The thumbnail if the original cannot be read; empty if the gallery has neither.
    """
    if gallery.value(photo_id, "photo_id") is None:  # an id that a client made up names no file
        return LargePhoto(b"", None)
    image = _original(gallery, photo_id) or gallery.thumbnail(photo_id) or b""
    links = (_web_link(gallery.value(photo_id, column)) for column in _LINK_COLUMNS)
    return LargePhoto(image, next(filter(None, links), None))


def _original(gallery: Gallery, photo_id: str) -> bytes | None:
    uri = photo_uri(gallery.origin, photo_id, gallery.value)
    if uri is None:
        return None
    try:
        return thumbnail(fetch(uri, 0, MAX_BYTES, DEFAULT_SCHEMES, _TIMEOUT_S), MAX_SIDE)
    except Exception as error:  # any error of a file system or decoder leaves the thumbnail
        log.warning("%s: original not shown: %s", uri, error)
        return None


def _web_link(value: Any) -> str | None:
    """A value as the address of a page on the web, in ASCII; None if it is not one."""
    is_web = isinstance(value, str) and value.startswith(("https://", "http://"))
    return quote(value, safe=_URI_CHARACTERS) if is_web else None
