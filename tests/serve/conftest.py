"""A real checkpoint (random towers) and a real gallery of drawn shapes, and a way to serve them."""

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
from PIL import Image, ImageDraw

from ray_jobs.recipes import recipe
from stbir.embedding.embed import embed_photos
from stbir.gallery.arrays import Features
from stbir.gallery.gallery import schema, table_uri
from stbir.gallery.publish import prepare, publish
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.storage.folder import Folder

CATEGORIES = ("box", "disc")
FIELDS = pa.schema([pa.field("text", pa.string())])
COUNT = 24


@dataclass(frozen=True)
class Photos:
    """What the gallery holds, as a test may hold against an answer."""

    ids: list[str]
    categories: list[str]
    pictures: list[bytes]
    vectors: Features
    texts: list[str | None]


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def shape(place: int) -> bytes:
    """A coloured box or disc, as JPEG."""
    random = np.random.default_rng(place)
    colour = tuple(int(value) for value in random.integers(0, 220, 3))
    (x, y), (w, h) = random.integers(10, 50, 2).tolist(), random.integers(25, 65, 2).tolist()
    picture = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if place % 2 else draw.rectangle)((x, y, x + w, y + h), fill=colour)
    return encoded(picture, "JPEG")


@pytest.fixture(scope="session")
def checkpoint_uri(tmp_path_factory) -> str:
    uri = str(tmp_path_factory.mktemp("serve") / "checkpoint")
    smoke = recipe("smoke")
    checkpoint.save(uri, "epoch-0", build(smoke.model, seed=0), smoke, made_from="", counts={})
    return uri


@pytest.fixture(scope="session")
def photos(checkpoint_uri) -> Photos:
    pictures = [shape(place) for place in range(COUNT)]
    return Photos(
        [f"shape/{place:02d}" for place in range(COUNT)],  # a slash must survive the way through a URI
        [CATEGORIES[place % 2] for place in range(COUNT)],
        pictures,
        embed_photos(checkpoint.load(checkpoint_uri, part="photo"), pictures),
        [f"words of {place:02d}" if place % 5 else None for place in range(COUNT)],
    )


@pytest.fixture(scope="session")
def write_gallery(photos) -> Callable[[Path, str], str]:
    """`write_gallery(folder, checkpoint_digest)` publishes the photos and returns the gallery's URI."""

    def write(path: Path, digest: str) -> str:
        path.mkdir(parents=True)
        folder, dim = Folder(str(path)), photos.vectors.shape[1]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(photos.vectors.ravel()), dim)
        columns = [pa.array(photos.ids), pa.array(photos.categories), vectors, pa.array(photos.pictures)]
        columns += [pa.array([hashlib.sha256(picture).hexdigest() for picture in photos.pictures])]
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
def sketch() -> bytes:
    """A circle, drawn as the data's sketches are: 256 px, 2 px black on white, PNG."""
    picture = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(picture).ellipse((50, 60, 200, 210), outline=0, width=2)
    return encoded(picture)


@pytest.fixture(scope="package")
def serve_port(ray_cluster) -> Iterator[int]:
    """Ray Serve, listening on a port of 127.0.0.1."""
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()


@pytest.fixture(scope="package")
def endpoint(serve_port, checkpoint_uri, gallery_uri) -> Iterator[httpx.Client]:
    """A client of the application as shipped."""
    from ray import serve

    from serve.app import build

    serve.run(build({"checkpoint": checkpoint_uri, "gallery": gallery_uri}), name="shipped", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{serve_port}", timeout=60) as client:
        yield client
    serve.delete("shipped")
