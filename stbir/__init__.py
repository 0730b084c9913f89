"""Fine-grained image retrieval from a sketch plus a short text (STBIR, arXiv 2604.15735).

    >>> import stbir
    >>> model = stbir.load("checkpoint/")
    >>> gallery = stbir.index("photos/", model, "gallery/")
    >>> hits = gallery.search(sketch="chair.png", text="red leather seat", k=3)
    >>> len(hits), hits[0].uri.endswith(hits[0].photo_id)
    (3, True)
    >>> hits.show().size
    (608, 242)

This import is light: torch, NumPy and Lance are imported when one of the names below is used.

A library: no Ray, HTTP, argument parsing or environment variables belong here.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stbir.api.gallery import Negative, PhotoGallery, index, open_gallery
    from stbir.api.hits import Hit, Hits
    from stbir.api.model import Model, from_clip, load
    from stbir.api.training import train
    from stbir.errors import InputError, JobFailedError
    from stbir.gallery.filters import Condition

__all__ = [
    "Condition",
    "Hit",
    "Hits",
    "InputError",
    "JobFailedError",
    "Model",
    "Negative",
    "PhotoGallery",
    "from_clip",
    "index",
    "load",
    "open_gallery",
    "train",
]
# Public name → its module, imported at the first use of the name.
_MODULES = {
    "Condition": "stbir.gallery.filters",
    "Hit": "stbir.api.hits",
    "Hits": "stbir.api.hits",
    "InputError": "stbir.errors",
    "JobFailedError": "stbir.errors",
    "Model": "stbir.api.model",
    "Negative": "stbir.api.gallery",
    "PhotoGallery": "stbir.api.gallery",
    "from_clip": "stbir.api.model",
    "index": "stbir.api.gallery",
    "load": "stbir.api.model",
    "open_gallery": "stbir.api.gallery",
    "train": "stbir.api.training",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'stbir' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
