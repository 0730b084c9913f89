"""The descriptions of the model and of the gallery for `/v1/info`, with photos to start a search from."""

from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from serve.messages import Release, Vector
from stbir.gallery.gallery import Gallery
from stbir.model import checkpoint

NUM_EXAMPLES = 6
_GENERIC_NAMES = ("", "gallery", "out")  # of folders; they do not say what the photos are


def describe_gallery(release: Release, gallery: Gallery, vector: Vector) -> dict[str, Any]:
    """The fields of `gallery`. `vector` (D,): of any query, which selects the examples."""
    return {
        "name": gallery_name(release.gallery),
        "version": gallery.version,
        "count": gallery.count,
        "categories": gallery.categories,
        "columns": gallery.columns,
        "examples": _examples(gallery, vector),
    }


def gallery_name(uri: str) -> str:
    """The last part of a URI, or the one before if the last is generic: `chairs` of `chairs/gallery/`."""
    parts = (uri.partition("://")[2] or uri).rstrip("/").split("/")[-2:]
    return next((part for part in reversed(parts) if part not in _GENERIC_NAMES), parts[-1])


def _examples(gallery: Gallery, vector: Vector) -> list[dict[str, Any]]:
    """NUM_EXAMPLES photos: photo_id, category, text. One of each category, spread evenly, then another."""
    names = gallery.categories
    num_categories = min(len(names), NUM_EXAMPLES)
    selected = [names[index * len(names) // num_categories] for index in range(num_categories)]
    k = -(-NUM_EXAMPLES // max(num_categories, 1))
    by_category = [gallery.search(vector[None], k, category)[0] for category in selected]
    hits = [hit for hits in zip_longest(*by_category) for hit in hits if hit is not None][:NUM_EXAMPLES]
    return [{name: asdict(hit)[name] for name in ("photo_id", "category", "text")} for hit in hits]


def describe_model(checkpoint_uri: str) -> dict[str, Any]:
    """The description of a checkpoint's model."""
    recipe = checkpoint.read_recipe(checkpoint_uri)
    model = recipe.model
    sketch = model.sketch or model.photo
    encoders = {"photo": model.photo.model, "sketch": sketch.model, "text": model.text.model}
    sizes = {"photo": model.photo.preprocess.size, "sketch": sketch.preprocess.size}
    return {"recipe": recipe.name, "dim": model.width, "towers": encoders, "pixels": sizes}
