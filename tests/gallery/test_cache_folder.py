"""The local cache of galleries: limited in size, without old versions, and never removed while in use."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir.gallery import cache_folder
from stbir.gallery.cache_folder import CacheFolder
from stbir.gallery.gallery import open_gallery
from stbir.gallery.index import IndexPlan
from stbir.gallery.local_cache import CacheConfig
from stbir.storage.folder import Folder
from tests.conftest import ROOT
from tests.gallery.test_gallery import DIGEST, brute_force_search, publish_gallery, unit_vectors

MAX_BYTES = 100
PLAN = IndexPlan(4, 4)


def folder(cache: Path, table: int, version: int) -> CacheFolder:
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in (table, version)]
    return CacheFolder(cache, f"{hashes[0][:16]}-{hashes[1][:32]}", MAX_BYTES)


def fill(folder: CacheFolder, num_bytes: int) -> bool:
    folder.acquire()
    if fits := folder.make_room(num_bytes):
        (folder.path / "data").write_bytes(bytes(num_bytes))
    return fits


def test_old_version_is_removed_after_its_last_user(tmp_path):
    old, second_user, new = folder(tmp_path, 1, 1), folder(tmp_path, 1, 1), folder(tmp_path, 1, 2)
    assert fill(old, 10)
    second_user.acquire()
    path = old.path
    del old
    assert fill(new, 10)
    assert path.exists()
    del second_user
    assert new.make_room(10)
    assert not path.exists()
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(path.name)] == []


def test_least_recently_used_table_is_removed_when_the_cache_is_full(tmp_path):
    paths = []
    for table in range(3):
        one = folder(tmp_path, table, 0)
        assert fill(one, 30)
        paths.append(one.path)
        del one
    folder(tmp_path, 0, 0).acquire()  # a use
    last = folder(tmp_path, 3, 0)
    assert fill(last, 40)
    assert [path.exists() for path in paths] == [True, False, True]
    assert not last.make_room(MAX_BYTES + 1)


def test_version_of_a_killed_process_is_removed_and_its_incomplete_files_too(tmp_path):
    name = folder(tmp_path, 1, 1).path.name
    code = f"""
from pathlib import Path
from stbir.gallery.cache_folder import CacheFolder
folder = CacheFolder(Path({str(tmp_path)!r}), {name!r}, 100)
folder.acquire()
(folder.path / "a.part").mkdir()
(folder.path / "b.part").write_text("half")
print("ready", flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        new = folder(tmp_path, 1, 2)
        assert fill(new, 10)
        beside = folder(tmp_path, 1, 1)
        beside.acquire()
        assert len(list(beside.path.iterdir())) == 2  # that process is still writing
        del beside
        process.kill()
    again = folder(tmp_path, 1, 1)
    again.acquire()
    assert list(again.path.iterdir()) == []
    path = again.path
    del again
    assert new.make_room(10)
    assert not path.exists()


def test_a_lock_that_was_removed_before_it_was_acquired_leaves_the_files_of_a_later_user(
    tmp_path, monkeypatch
):
    """Between opening and locking, another process removes the version, and a third one downloads it."""
    first, second, third = (folder(tmp_path, 1, 1) for _ in range(3))
    first.acquire()
    path = first.path
    users = [first]
    del first

    def remove_and_download(descriptor: int) -> bool:
        monkeypatch.undo()
        users.clear()
        cache_folder._remove_unused(path)
        third.acquire()
        (third.path / "a.part").write_text("half")
        return cache_folder._try_lock(descriptor)

    monkeypatch.setattr(cache_folder, "_try_lock", remove_and_download)
    second.acquire()
    assert [part.read_text() for part in path.iterdir()] == ["half"]


def test_a_failed_download_leaves_no_incomplete_file(tmp_path):
    one = folder(tmp_path, 1, 1)
    one.acquire()
    writes = [Path.touch, Path.mkdir, Path.exists]  # a file, a folder, and nothing

    def download(write) -> None:
        with one.temporary_path() as part:
            write(part)
            raise KeyboardInterrupt

    for write in writes:
        with pytest.raises(KeyboardInterrupt):
            download(write)
    assert list(one.path.iterdir()) == []


def test_foreign_files_in_the_cache_are_not_removed(tmp_path):
    (tmp_path / "notes.lock").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(bytes(500))
    assert fill(folder(tmp_path, 1, 1), MAX_BYTES)
    assert (tmp_path / "photos" / "a.jpg").exists()
    assert (tmp_path / "notes.lock").exists()


STEP = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 120), st.booleans())


@given(st.lists(STEP, max_size=12))
def test_cache_never_exceeds_its_limit_and_no_used_folder_vanishes(steps):
    with tempfile.TemporaryDirectory() as cache:
        users: list[CacheFolder] = []
        for table, version, num_bytes, stays in steps:
            one = folder(Path(cache), table, version)
            one.acquire()
            if not (one.path / "data").exists():
                fill(one, num_bytes)
            users = [*users, one] if stays else users
            del one
            assert sum(file.stat().st_size for file in Path(cache).rglob("data")) <= MAX_BYTES
            assert all(user.path.exists() for user in users)
        del users


@pytest.fixture
def nothing_in_memory(monkeypatch) -> None:
    monkeypatch.setattr("stbir.gallery.local_cache._MAX_IN_MEMORY_BYTES", 0)


def test_open_galleries_keep_their_cache_and_dropped_ones_lose_it(s3, tmp_path, nothing_in_memory):
    gallery_folder, cache = Folder(f"{s3}/bounded-cache"), CacheConfig(tmp_path)
    query = unit_vectors(1, seed=9)
    galleries = []
    for seed in range(3):
        publish_gallery(gallery_folder, unit_vectors(300, seed=seed), PLAN)
        del galleries[:-1]  # a replica holds two versions
        galleries.append(open_gallery(gallery_folder.uri, DIGEST, cache=cache))
    assert len(list(tmp_path.rglob("vectors.f32"))) == 2
    for seed, gallery in zip((1, 2), galleries, strict=True):
        [hits] = gallery.search(query, 7)
        expected = brute_force_search(unit_vectors(300, seed=seed), query[0], 7)
        assert [hit.photo_id for hit in hits] == [photo_id for photo_id, _ in expected]
