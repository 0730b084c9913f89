"""A checkpoint and a gallery for benchmarks: real encoders with random weights, random photos.

The cost of a forward pass or a search does not depend on training.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from PIL import Image

from ray_jobs.recipes import recipe
from stbir.gallery.publish import prepare, publish
from stbir.gallery.table import schema, table_uri
from stbir.gallery.thumbnail import thumbnail
from stbir.images import encode_png
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder

CATEGORIES = ("chair", "shoe")
NUM_THUMBNAILS = 16
# For filters on numbers and times.
FIELDS = pa.schema([("price", pa.int64()), ("weight", pa.float64()), ("added", pa.timestamp("us", "UTC"))])


def make_checkpoint(uri: str, recipe_name: str) -> str:
    """Save the encoders of a recipe without pretrained weights."""
    named = recipe(recipe_name)
    random = replace(named, model=named.model.without_weights())
    checkpoint.save(uri, "epoch-0", build_retriever(random.model), random, made_from="", counts={})
    return uri


def make_gallery(uri: str, checkpoint_uri: str, photos: int) -> str:
    """Publish `photos` random unit vectors, each with a thumbnail."""
    Path(uri).mkdir(parents=True)
    dim = checkpoint.read_recipe(checkpoint_uri).model.width
    folder, digest = Folder(uri), checkpoint.read_digest(checkpoint_uri)
    table = pa.Table.from_arrays(_columns(photos, dim), schema=schema(dim, FIELDS))
    version = lance.write_dataset(table, table_uri(folder)).version
    publish(folder, prepare(folder, version, digest, None), {"ok": photos})
    return uri


def main() -> None:
    """Make both. In its own process, as the imports take a gigabyte."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder for both")
    parser.add_argument("--recipe", required=True, help="recipe of the encoders")
    parser.add_argument("--photos", type=int, required=True, help="size of the gallery")
    args = parser.parse_args()
    model = make_checkpoint(f"{args.out}/checkpoint", args.recipe)
    make_gallery(f"{args.out}/gallery", model, args.photos)


def _columns(photos: int, dim: int) -> list[pa.Array]:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(photos, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    thumbnails = [_thumbnail(rng) for _ in range(NUM_THUMBNAILS)]
    return [
        pa.array([f"photo/{number:06d}" for number in range(photos)]),
        pa.array([CATEGORIES[number % len(CATEGORIES)] for number in range(photos)]),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
        pa.array([thumbnails[number % NUM_THUMBNAILS] for number in range(photos)]),
        pa.array([f"{number:064x}" for number in range(photos)]),  # in place of a digest
        *(pa.array(rng.integers(0, 1000, photos)).cast(field.type) for field in FIELDS),
    ]


def _thumbnail(rng: np.random.Generator) -> bytes:
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    return thumbnail(encode_png(Image.fromarray(pixels).resize((128, 128))))


if __name__ == "__main__":
    main()
