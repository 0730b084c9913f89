"""A checkpoint with random weights, a gallery of drawn shapes, and an endpoint that serves them."""

import hashlib
import io
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import lance
import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI
from PIL import Image, ImageDraw

from ray_jobs.recipes import recipe
from stbir.embedding.embed import embed_photos
from stbir.gallery.arrays import Features
from stbir.gallery.publish import prepare, publish
from stbir.gallery.table import schema, table_uri
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from tests.serve.local import application

CATEGORIES = ("box", "disc")
FIELDS = pa.schema([pa.field("text", pa.string())])
COUNT = 24


@dataclass(frozen=True)
class Photos:
    """The contents of the gallery, by position."""

    ids: list[str]
    categories: list[str]
    images: list[bytes]
    vectors: Features
    texts: list[str | None]


def encode_image(image: Image.Image, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    return buffer.getvalue()


def draw_shape(index: int) -> bytes:
    """A coloured box or disc, as JPEG."""
    rng = np.random.default_rng(index)
    colour = tuple(int(value) for value in rng.integers(0, 220, 3))
    (x, y), (w, h) = rng.integers(10, 50, 2).tolist(), rng.integers(25, 65, 2).tolist()
    image = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if index % 2 else draw.rectangle)((x, y, x + w, y + h), fill=colour)
    return encode_image(image, "JPEG")


@pytest.fixture(scope="session")
def checkpoint_uri(tmp_path_factory) -> str:
    uri = str(tmp_path_factory.mktemp("serve") / "checkpoint")
    smoke = recipe("smoke")
    checkpoint.save(uri, "epoch-0", build_retriever(smoke.model, seed=0), smoke, made_from="", counts={})
    return uri


@pytest.fixture(scope="session")
def photos(checkpoint_uri) -> Photos:
    images = [draw_shape(index) for index in range(COUNT)]
    return Photos(
        [f"shape/{index:02d}" for index in range(COUNT)],  # a slash, which a URI must escape
        [CATEGORIES[index % 2] for index in range(COUNT)],
        images,
        embed_photos(checkpoint.load(checkpoint_uri, part="photo"), images),
        [f"words of {index:02d}" if index % 5 else None for index in range(COUNT)],
    )


@pytest.fixture(scope="session")
def write_gallery(photos) -> Callable[..., str]:
    """`write_gallery(folder, checkpoint_digest)` publishes the photos and returns the gallery's URI.

    With `prefix`, their ids have it in place of `shape`.
    """

    def write(path: Path, digest: str, prefix: str = "shape") -> str:
        path.mkdir(parents=True)
        folder, dim = Folder(str(path)), photos.vectors.shape[1]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(photos.vectors.ravel()), dim)
        ids = [photo_id.replace("shape", prefix) for photo_id in photos.ids]
        columns = [pa.array(ids), pa.array(photos.categories), vectors, pa.array(photos.images)]
        columns += [pa.array([hashlib.sha256(image).hexdigest() for image in photos.images])]
        columns += [pa.array(photos.texts)]
        table = pa.Table.from_arrays(columns, schema=schema(dim, FIELDS))
        version = lance.write_dataset(table, table_uri(folder)).version
        publish(folder, prepare(folder, version, digest, None), {"ok": len(table)})
        return folder.uri

    return write


@pytest.fixture(scope="session")
def gallery_uri(checkpoint_uri, write_gallery, tmp_path_factory) -> str:
    return write_gallery(tmp_path_factory.mktemp("serve") / "gallery", checkpoint.read_digest(checkpoint_uri))


@pytest.fixture(scope="session")
def shoes_uri(checkpoint_uri, write_gallery, tmp_path_factory) -> str:
    """A second gallery of the checkpoint, whose ids begin with `shoe/`."""
    return write_gallery(
        tmp_path_factory.mktemp("serve") / "shoes", checkpoint.read_digest(checkpoint_uri), "shoe"
    )


@pytest.fixture(scope="session")
def app(checkpoint_uri: str, gallery_uri: str) -> FastAPI:
    """The application in this process, without Ray."""
    return application(checkpoint_uri, gallery_uri)


@pytest.fixture(scope="session")
def sketch() -> bytes:
    """A circle in the style of the training data: PNG, 256 pixels, a black line of 2 pixels on white."""
    image = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(image).ellipse((50, 60, 200, 210), outline=0, width=2)
    return encode_image(image)


@pytest.fixture(scope="package")
def serve_port(ray_cluster) -> Iterator[int]:
    """The port of 127.0.0.1 on which Ray Serve listens."""
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()


@pytest.fixture(scope="package")
def endpoint(serve_port, checkpoint_uri, gallery_uri) -> Iterator[httpx.Client]:
    """An HTTP client of the application with default settings."""
    from ray import serve

    from serve.app import build

    serve.run(
        build({"checkpoint": checkpoint_uri, "gallery": gallery_uri}),
        name="default",
        route_prefix="/",
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{serve_port}", timeout=60) as client:
        yield client
    serve.delete("default")
