"""Folders: each file is a photo or counted with a reason; a name is never parsed as a URL."""

import os
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Photo
from stbir.data.validation import Fault
from stbir.storage.folder import Folder
from tests.catalogue.test_catalogue import read_all
from tests.data.image_files import png, write_files


def outcomes(uri: object) -> dict[str, object]:
    """Photo id → the bytes of a photo, or reason and detail."""
    items = read_all(FolderCatalogue(str(uri)))
    return {i.photo_id: i.data if isinstance(i, Photo) else (i.reason, i.detail) for i in items}


def test_the_content_decides_and_all_other_files_are_counted(tmp_path: Path) -> None:
    photos = ["x.heic", "x.jfif", "x.jp2", "x.jpe", "nosuffix", "x.backup", "a.b/nosuffix"]
    files: dict[str, bytes | str] = dict.fromkeys(photos, png())
    files |= {".DS_Store": b"\0\0\0\1Bud1", "._x.png": b"\0\5\26\7", "sub/Thumbs.db": b"", "empty": b""}
    files |= {"notes.txt": "BMW, P6 and GIF", "data.json": "{}"}
    result = outcomes(write_files(tmp_path, files))
    assert {name for name, data in result.items() if data == png()} == set(photos)
    assert {name: data for name, data in result.items() if data != png()} == {
        ".DS_Store": ("not an image", ".DS_Store"),
        "._x.png": ("not an image", "._*"),
        "sub/Thumbs.db": ("not an image", ".db"),
        "empty": ("not an image", "no suffix"),
        "notes.txt": ("not an image", ".txt"),
        "data.json": ("not an image", ".json"),
    }


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "GIF", "JPEG2000"])
def test_photo_formats_are_found_without_a_suffix(tmp_path: Path, format: str) -> None:
    from stbir.images import open_image, register_formats

    register_formats()
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "photo", format)
    [data] = outcomes(tmp_path).values()
    assert isinstance(data, bytes)
    assert open_image(data).getpixel((16, 16)) == pytest.approx((200, 10, 10), abs=6)


def test_each_linked_folder_is_listed_once(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", {"deep/er/x.png": png(1)})
    outside = write_files(tmp_path / "outside", {"y.png": png(2), "sub/z.png": png(3)})
    for link, target in {"again": "deep", "link": outside, "other": outside, "sub": outside / "sub"}.items():
        (root / link).symlink_to(target)
    (outside / "up").symlink_to(tmp_path)
    (root / "file.png").symlink_to(outside / "y.png")
    (root / "broken.png").symlink_to(tmp_path / "nowhere")
    for name in ("loop", "loop.png"):
        (root / name).symlink_to(name)
    os.mkfifo(root / "pipe")
    assert outcomes(root) == {
        "file.png": png(2),
        "broken.png": ("photo missing", None),
        "loop": ("not a file", None),
        "loop.png": ("photo missing", None),
        "pipe": ("not a file", None),
        "again": ("link to a listed folder", None),
        "deep/er/x.png": png(1),
        "link/y.png": png(2),
        "link/sub/z.png": png(3),
        "link/up/outside": ("link to a listed folder", None),
        "link/up/root": ("link to a listed folder", None),
        "other": ("link to a listed folder", None),
        "sub": ("link to a listed folder", None),
    }


def test_a_name_that_is_not_utf8_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(png())
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9") / "x.png").write_bytes(png())
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("a note")
    (tmp_path / os.fsdecode(b"caf\xe9 photo")).write_bytes(png())
    reason = ("name is not UTF-8", None)
    assert outcomes(tmp_path) == {
        r"caf\udce9.png": reason,
        r"caf\udce9/x.png": reason,
        r"caf\udce9 photo": reason,
        r"caf\udce9.txt": ("not an image", ".txt"),
    }


NAME = st.text(string.ascii_letters + ":#?%*[]{}~ +&=\\'\"é\n", min_size=1, max_size=12)


@given(st.sets(NAME, min_size=1, max_size=5), NAME)
def test_any_name_is_read_as_it_is(names: set[str], folder: str) -> None:
    files: dict[str, bytes | str] = {f"{folder}d/{n}::{n}.png": png(i) for i, n in enumerate(names)}
    with tempfile.TemporaryDirectory() as root:
        assert outcomes(write_files(Path(root), files)) == files


def test_keys_of_a_bucket_are_read_as_they_are(s3: str) -> None:
    from fsspec.asyn import sync

    folder = Folder(f"{s3}/keys")

    async def put(key: str, data: bytes) -> None:
        client = await folder.fs.get_s3(folder.path)
        await client.put_object(Bucket=folder.path.partition("/")[0], Key=f"keys/{key}", Body=data)

    names = [
        "a::b.png",
        "q?x#y%20.png",
        "shop//x.png",
        "shop//d/y.png",
        "shop///z.png",
        "up/../w.png",
        "/first.png",
    ]
    for number, name in enumerate(names):
        sync(folder.fs.loop, put, name, png(number))
    sync(folder.fs.loop, put, "marker/", b"")
    sync(folder.fs.loop, put, "empty.png", b"")
    expected = {name: png(number) for number, name in enumerate(names)} | {"empty.png": b""}
    assert outcomes(folder.uri) == expected


def test_a_bucket_is_listed_beyond_its_first_page(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(f"{s3}/pages")
    folder.fs.pipe({folder.path_of(f"{number}.png"): b"x" for number in range(5)})
    monkeypatch.setattr(folder.fs, "req_kw", {"MaxKeys": 2})  # a page of S3 has 1000
    assert FolderCatalogue(folder.uri).count() == 5


def test_a_fault_has_a_name_that_can_be_stored(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    (root / "x.png").symlink_to("nowhere")
    [fault] = read_all(FolderCatalogue(str(root)))
    assert isinstance(fault, Fault)
    assert all(str(value).encode() for value in vars(fault).values())
