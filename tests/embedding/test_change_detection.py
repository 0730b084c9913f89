"""Which photos an update reads: those whose file may have changed since the gallery stored its identity."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stbir.catalogue.photo import Catalogue
from stbir.catalogue.registry import open_photos
from stbir.catalogue.shards import ShardsCatalogue
from stbir.config import Preprocess
from stbir.embedding.decode import DecodedPart, UnreadPart, decode_part
from stbir.embedding.gallery_update import EmbeddingSpace, plan_update, update_table
from stbir.errors import JobFailedError
from stbir.gallery.arrays import Features
from stbir.gallery.fingerprint import HASH_TYPE
from stbir.gallery.identity_store import _MAX_FILES, IdentityStore
from stbir.gallery.partitioned_records import partitioned
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock
from tests.catalogue.test_catalogue import write_tar
from tests.data.image_files import png, write_files
from tests.ray_jobs.test_embed_gallery import ROWS, write_shards

SMALL = Preprocess(16, (0, 0, 0), (1, 1, 1))
OLD = 1_700_000_000
# A file of 256 photos and more, so that an update reads parts of several listed ones.
PHOTOS = {f"{n // 100}/{n:03}.png": png(n % 16) for n in range(300)}


def update(catalogue: Catalogue, gallery: Folder) -> tuple[list[str], list[str]]:
    """Update a gallery with vectors of zeros; the ids of the photos that were read, and those encoded."""
    read, encoded = list[str](), list[str]()

    def embed(parts: Iterator[DecodedPart | UnreadPart]) -> Iterator[tuple[DecodedPart, Features]]:
        for part in parts:
            decoded = part if isinstance(part, DecodedPart) else decode_part(catalogue, part, SMALL)[0]
            read.extend([] if isinstance(part, DecodedPart) else part.part.ids)
            encoded.extend(decoded.photo_ids)
            yield decoded, np.zeros((len(decoded.photo_ids), 2), np.float32)

    with artifact_lock(gallery, "gallery") as lock:
        plan = plan_update(catalogue, gallery, EmbeddingSpace("0", 2), max_removed=1)
        table = update_table(plan, gallery, lock, embed, 0.0)
    assert table.num_rows == table.counts["ok"] == catalogue.count()
    return read, encoded


def write_photos(folder: Path, files: dict[str, bytes]) -> None:
    write_files(folder, {**files})
    for name in files:
        os.utime(folder / name, (OLD, OLD))


@pytest.fixture
def gallery(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "gallery"))


@pytest.fixture
def photos(tmp_path: Path, gallery: Folder) -> Path:
    """300 photos that the gallery has."""
    write_photos(tmp_path / "photos", PHOTOS)
    assert update(open_photos(str(tmp_path / "photos")), gallery) == (sorted(PHOTOS), sorted(PHOTOS))
    return tmp_path / "photos"


def write_csv(photos: Path, price: int) -> str:
    lines = [f"{n},{photos}/{name},{price if n == 7 else 1}" for n, name in enumerate(PHOTOS)]
    (photos.parent / "list.csv").write_text("\n".join(["photo_id,uri,price", *lines]))
    return str(photos.parent / "list.csv")


def make_tar(photos: Path) -> str:
    write_tar(photos.parent / "x.tar", PHOTOS)
    os.utime(photos.parent / "x.tar", (OLD, OLD))
    return str(photos.parent / "x.tar")


KINDS: dict[str, Callable[[Path], str]] = {
    "folder": str,
    "table": lambda photos: write_csv(photos, 1),
    "tar": make_tar,
    "shards": lambda photos: write_shards(str(photos.parent / "shards"), ROWS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_unchanged_photos_are_not_opened(
    photos: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, gallery = KINDS[kind](photos), Folder(str(tmp_path / "other"))
    update(open_photos(uri), gallery)
    opened: list[object] = []
    monkeypatch.setattr("stbir.catalogue.reading.fetch", lambda *args: opened.append(args))
    monkeypatch.setattr(ShardsCatalogue, "_rows", lambda *args: opened.append(args))
    assert update(open_photos(uri), gallery) == ([], [])
    assert opened == []


def test_only_files_that_may_have_changed_are_read_and_only_new_bytes_are_encoded(
    photos: Path, gallery: Folder
) -> None:
    write_photos(photos, {"1/100.png": png(99), "2/200.png": png(99, (90, 90)), "0/new.png": png(5)})
    os.utime(photos / "1/100.png", (OLD + 1, OLD + 1))  # other bytes
    os.utime(photos / "0/003.png", (OLD + 1, OLD + 1))  # the same bytes
    assert (photos / "2/200.png").stat().st_mtime == OLD  # a copy that preserves the time, of another size
    changed = ["0/new.png", "1/100.png", "2/200.png"]
    assert update(open_photos(str(photos)), gallery) == (["0/003.png", *changed], changed)
    assert update(open_photos(str(photos)), gallery) == ([], [])


def test_a_file_written_just_before_it_is_listed_is_read_again(photos: Path, gallery: Folder) -> None:
    """Its clock may not have moved on when it is written once more ("racy git")."""
    now = time.time()
    for data in (png(98), png(99)):
        write_files(photos, {"0/001.png": data})
        os.utime(photos / "0/001.png", (now, now))
        assert update(open_photos(str(photos)), gallery) == (["0/001.png"], ["0/001.png"])


def test_a_gallery_without_identities_stores_them(photos: Path, gallery: Folder) -> None:
    shutil.rmtree(f"{gallery.uri}/identities")
    assert update(open_photos(str(photos)), gallery) == (sorted(PHOTOS), [])
    assert update(open_photos(str(photos)), gallery) == ([], [])


def test_changed_metadata_of_an_unchanged_file_updates_its_row(photos: Path, tmp_path: Path) -> None:
    gallery = Folder(str(tmp_path / "table"))
    update(open_photos(write_csv(photos, 1)), gallery)
    assert update(open_photos(write_csv(photos, 2)), gallery) == (["7"], ["7"])


def test_a_repeated_id_of_an_unchanged_file_stays_a_fault(photos: Path, tmp_path: Path) -> None:
    """The second photo of an id is quarantined in each run, though its file is known."""
    gallery, rows = Folder(str(tmp_path / "table")), [f"a,{photos}/0/001.png", f"b,{photos}/0/002.png"]
    for lines in (rows, [*rows, rows[0]]):
        (tmp_path / "list.csv").write_text("\n".join(["photo_id,uri", *lines]))
        catalogue = open_photos(str(tmp_path / "list.csv"))
        if lines is rows:
            update(catalogue, gallery)
    with pytest.raises(JobFailedError, match=r"1 of 3 photos cannot be embedded \(1 x duplicate id"):
        update(catalogue, gallery)


def test_objects_are_compared_by_their_etag(s3: str, tmp_path: Path, gallery: Folder) -> None:
    folder = Folder(f"{s3}/etags")
    for name in ("a.png", "b.png"):
        folder.write(name, png(1))
    (tmp_path / "list.csv").write_text(f"photo_id,uri\na,{s3}/etags/a.png\nb,{s3}/etags/b.png")
    for uri, changed in ((folder.uri, "b.png"), (str(tmp_path / "list.csv"), "b")):
        folder.write("b.png", png(1))
        update(open_photos(uri), gallery)
        folder.write("a.png", png(1))  # the same bytes have the same ETag
        folder.write("b.png", png(2))
        assert update(open_photos(uri), gallery) == ([changed], [changed])


def test_identities_are_compacted_to_the_rows_that_exist(gallery: Folder) -> None:
    store = IdentityStore(gallery)
    for number in range(_MAX_FILES + 1):
        store.append([(b"kept", b"%d" % number), (b"deleted", b"0")])
    store.append([])
    fingerprints = np.dtype([("fingerprint", HASH_TYPE)])
    store.compact(partitioned(fingerprints, [np.array([(b"kept",)], fingerprints)], "fingerprint"))
    for each in (store, IdentityStore(gallery)):
        assert np.concatenate(list(each.read())).tolist() == [(b"kept", b"%d" % _MAX_FILES)]
    assert len(gallery.child("identities").list_entries()) == 1
