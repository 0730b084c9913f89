"""`synthetic:PHOTOS[,seed=SEED]`: photos and sketches that are rendered when they are read.

URIs are `synthetic:PHOTOS,SEED/NUMBER/photo` and `…/sketch/WHICH`. Any process can render any image from its
URI. photo_id is `synthetic-SEED:NUMBER`; the class is the body's shape and the category.
"""

import re

import numpy as np

from stbir.data.sources.entry import Entry, Source
from stbir.data.sources.synthetic.catalogue import Item, catalogue
from stbir.data.sources.synthetic.photo import draw_photo
from stbir.data.sources.synthetic.sketch import draw_sketch
from stbir.errors import InputError
from stbir.images import encode_as

_SPEC = re.compile(r"(?P<photos>\d+)(?:,seed=(?P<seed>\d+))?")
_URI = re.compile(
    r"synthetic:(?P<photos>\d+),(?P<seed>\d+)/(?P<number>\d+)/(?P<kind>photo|sketch)(?:/(?P<n>\d+))?"
)


def open_synthetic(spec: str) -> Source:
    """The source of `PHOTOS` or `PHOTOS,seed=SEED`. Raises InputError for anything else."""
    match = _SPEC.fullmatch(spec)
    if not match:
        raise InputError(f"synthetic:{spec}: write it as synthetic:PHOTOS or synthetic:PHOTOS,seed=SEED")
    photos, seed = int(match["photos"]), int(match["seed"] or 0)
    return Source([_entry(item, photos, seed) for item in catalogue(photos, seed)], read)


def _entry(item: Item, photos: int, seed: int) -> Entry:
    base = f"synthetic:{photos},{seed}/{item.number}"
    return Entry(
        photo_id=f"synthetic-{seed}:{item.number:06d}",
        category=item.shape.category,
        class_=f"{item.shape.body} {item.shape.category}",
        split=item.split,
        photo=f"{base}/photo",
        sketches=tuple(f"{base}/sketch/{n}" for n in range(item.num_sketches)),
        text=item.caption,
        text_source="synthetic",
    )


def read(uri: str) -> bytes:
    """Render the image of a URI: a photo as JPEG, a sketch as PNG. Raises InputError for another URI."""
    match = _URI.fullmatch(uri)
    if not match:
        raise InputError(f"{uri}: not an image of the synthetic source; use the URIs of its entries")
    photos, seed, number = (int(match[key]) for key in ("photos", "seed", "number"))
    items = catalogue(photos, seed)
    if number >= len(items):
        raise InputError(f"{uri}: there are only {len(items)} photos; use the URIs of the source's entries")
    if match["kind"] == "photo":
        return encode_as(draw_photo(items[number], np.random.default_rng([seed, number])), "JPEG", quality=92)
    rng = np.random.default_rng([seed, number, 1 + int(match["n"] or 0)])
    return encode_as(draw_sketch(items[number].shape, rng), "PNG")
