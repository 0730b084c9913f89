"""Enlarged photos: the original where it can be read, its web page, and no file of an invented id."""

import io
from typing import Any

import pytest
from PIL import Image

from serve.deployments.gallery_info import describe_gallery, gallery_name
from serve.deployments.large_photo import MAX_SIDE, large_photo
from serve.messages import Release
from stbir.gallery.gallery import Gallery, open_gallery
from stbir.model import checkpoint
from tests.serve.conftest import encode_image
from tests.serve.local import send


class FakeGallery:
    """A gallery of one photo, `a/b.png`, with thumbnail b"small"."""

    def __init__(self, origin: str = "", **columns: Any) -> None:
        self.origin, self.columns = origin, {"photo_id": "a/b.png", **columns}

    def value(self, photo_id: str, column: str) -> Any:
        return self.columns.get(column) if photo_id == "a/b.png" else None

    def thumbnail(self, photo_id: str) -> bytes | None:
        return b"small" if photo_id == "a/b.png" else None


@pytest.fixture
def folder(tmp_path):
    """The folder of the originals, with a file outside the gallery."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_bytes(encode_image(Image.new("RGB", (2400, 1200), "red")))
    (tmp_path / "secret.png").write_bytes(encode_image(Image.new("RGB", (9, 9))))
    return tmp_path


def size(image: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(image), formats=("JPEG",)) as opened:
        return opened.size


def test_original_of_a_folder_is_reduced(folder):
    photo = large_photo(FakeGallery(f"folder:{folder}"), "a/b.png")
    assert (size(photo.image), photo.link) == ((MAX_SIDE, MAX_SIDE // 2), None)


def test_original_of_a_table_is_at_its_uri(folder):
    photo = large_photo(FakeGallery(f"table:{folder}", uri="secret.png"), "a/b.png")
    assert size(photo.image) == (9, 9)


def test_invented_id_reads_no_file(folder):
    assert large_photo(FakeGallery(f"folder:{folder}"), "secret.png").image == b""


@pytest.mark.parametrize("origin", ["", "folder:/nowhere", "table:/nowhere"])
def test_thumbnail_replaces_an_unreadable_original(origin):
    assert large_photo(FakeGallery(origin), "a/b.png").image == b"small"


@pytest.mark.parametrize(
    ("columns", "link"),
    [
        ({"link": "https://shop.example/ä?x=1"}, "https://shop.example/%C3%A4?x=1"),
        ({"link": "https://shop.example/1", "uri": "https://images.example/1"}, "https://shop.example/1"),
        ({"link": "javascript:alert(1)", "uri": "https://images.example/1"}, "https://images.example/1"),
        ({"link": 'https://a.example/>;"\r\nB: c'}, "https://a.example/%3E;%22%0D%0AB:%20c"),
        ({"link": 5, "uri": "a/b.png"}, None),
    ],
)
def test_link_is_a_web_address_of_the_catalogue(columns, link):
    assert large_photo(FakeGallery(**columns), "a/b.png").link == link


def test_sizes_of_a_photo_over_http(app, photos):
    """This gallery has no originals."""
    for query in ("", "?size=thumbnail", "?size=large"):
        assert send(app, "GET", f"/v1/photos/shape%2F03{query}").content == photos.images[3]
    assert send(app, "GET", "/v1/photos/none?size=large").status_code == 404
    assert send(app, "GET", "/v1/photos/shape%2F03?size=huge").status_code == 422


def test_link_header_of_a_large_photo(app, gallery_uri, monkeypatch):
    def value(gallery: Gallery, photo_id: str, column: str) -> str:
        return "https://shop.example/3" if column == "link" else photo_id

    monkeypatch.setattr(Gallery, "value", value)
    monkeypatch.setattr(Gallery, "thumbnail", lambda gallery, photo_id: b"image")
    response = send(app, "GET", "/v1/photos/shape%2F03?size=large")
    assert response.headers["link"] == '<https://shop.example/3>; rel="describedby"'


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("out/sofas", "sofas"),
        ("out/demo/gallery", "demo"),
        ("s3://bucket/chairs/gallery/", "chairs"),
        ("s3://bucket/gallery", "bucket"),
        ("out/gallery", "gallery"),
    ],
)
def test_name_of_a_gallery_says_what_it_has(uri: str, name: str) -> None:
    assert gallery_name(uri) == name


def test_description_has_name_and_examples_of_all_categories(checkpoint_uri, gallery_uri, photos):
    digest = checkpoint.read_digest(checkpoint_uri)
    gallery = open_gallery(gallery_uri, digest)
    info = describe_gallery(Release(checkpoint_uri, digest, gallery_uri, 1), gallery, photos.vectors[0])
    assert (info["name"], info["count"]) == (gallery_name(gallery_uri), len(photos.ids))
    assert [example["category"] for example in info["examples"]] == ["box", "disc"] * 3
    rows = dict(zip(photos.ids, zip(photos.categories, photos.texts, strict=True), strict=True))
    for example in info["examples"]:
        assert rows[example["photo_id"]] == (example["category"], example["text"])
    assert len({example["photo_id"] for example in info["examples"]}) == 6
