"""Captions of hits: from the table, whichever store holds them."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbir.gallery.cache_folder import CacheFolder
from stbir.gallery.caption_store import (
    TableCaptions,
    TooLargeError,
    load_captions,
    memmap_captions,
    write_captions,
)
from stbir.gallery.gallery import open_gallery, open_table
from stbir.gallery.index import IndexPlan
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.publish import prepare, publish
from stbir.gallery.table import table_uri
from stbir.storage.folder import Folder
from tests.gallery.test_gallery import DIGEST, make_table, unit_vectors

PLAN = IndexPlan(4, 4)
TEXTS = ["a red chair", None, "ein Stuhl – größer, 椅子", "", "x\0y", "a" * 3000]
CAPTIONS = [TEXTS[n % len(TEXTS)] for n in range(300)]
EXPECTED = {n: caption or None for n, caption in enumerate(CAPTIONS)}


def publish_captions(folder: Folder, captions: pa.Array, plan: IndexPlan | None = None) -> None:
    table = make_table(unit_vectors(len(captions))).append_column("text", captions)
    version = lance.write_dataset(table, table_uri(folder), mode="overwrite").version
    publish(folder, prepare(folder, version, DIGEST, plan), {"ok": len(captions)})


def captions_of_hits(folder: Folder, cache: CacheConfig | None = None) -> dict[int, str | None]:
    """Captions by photo number."""
    [hits] = open_gallery(folder.uri, DIGEST, cache=cache).search(unit_vectors(1, seed=1), 300)
    return {int(hit.photo_id.removeprefix("photo-")): hit.text for hit in hits}


@pytest.mark.parametrize("string_type", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("plan", [None, PLAN], ids=["exact", "index"])
def test_each_hit_has_its_own_caption(tmp_path, plan, string_type):
    folder = Folder(str(tmp_path))
    publish_captions(folder, pa.array(CAPTIONS, string_type), plan)
    assert captions_of_hits(folder) == EXPECTED


def test_captions_match_their_photos_after_deletions(tmp_path):
    folder = Folder(str(tmp_path))
    publish_captions(folder, pa.array([f"text {n}" for n in range(300)]))
    open_table(folder).delete("photo_id IN ('photo-3', 'photo-50')")
    publish(folder, prepare(folder, open_table(folder).version, DIGEST, None), {"ok": 298})
    assert captions_of_hits(folder) == {n: f"text {n}" for n in range(300) if n not in (3, 50)}


def test_missing_caption_column_gives_no_captions(tmp_path):
    folder = Folder(str(tmp_path))
    version = lance.write_dataset(make_table(unit_vectors(300)), table_uri(folder)).version
    publish(folder, prepare(folder, version, DIGEST, None), {"ok": 300})
    assert set(captions_of_hits(folder).values()) == {None}


def test_numeric_text_column_holds_no_captions(tmp_path):
    folder = Folder(str(tmp_path))
    publish_captions(folder, pa.array(range(300)))
    assert set(captions_of_hits(folder).values()) == {None}


def test_large_captions_are_cached_on_disk_once(tmp_path, monkeypatch):
    monkeypatch.setattr("stbir.gallery.local_cache._MAX_IN_MEMORY_BYTES", 0)
    folder, cache = Folder(str(tmp_path / "gallery")), CacheConfig(tmp_path / "cache")
    publish_captions(folder, pa.array(CAPTIONS), PLAN)
    assert captions_of_hits(folder, cache) == EXPECTED
    [file] = cache.path.rglob("texts.utf8")
    monkeypatch.setattr("stbir.gallery.caption_store.write_captions", lambda *_: pytest.fail("rewritten"))
    assert captions_of_hits(folder, cache) == EXPECTED
    assert file.stat().st_size == sum(len((caption or "").encode()) for caption in CAPTIONS)


@pytest.mark.parametrize("max_bytes", [None, 100])
def test_captions_above_the_cache_limit_are_read_from_the_table(tmp_path, monkeypatch, max_bytes):
    monkeypatch.setattr("stbir.gallery.local_cache._MAX_IN_MEMORY_BYTES", 0)
    folder = Folder(str(tmp_path / "gallery"))
    cache = None if max_bytes is None else CacheConfig(tmp_path / "cache", max_bytes)
    publish_captions(folder, pa.array(CAPTIONS))
    assert captions_of_hits(folder, cache) == EXPECTED
    assert not list(tmp_path.rglob("texts.utf8"))


@settings(max_examples=40)
@given(texts=st.lists(st.none() | st.text(max_size=20), min_size=1, max_size=40), data=st.data())
def test_all_stores_return_the_same_captions(tmp_path_factory, texts, data):
    folder = tmp_path_factory.mktemp("captions")
    table = pa.table({"text": pa.array(texts, pa.string())})
    dataset = lance.write_dataset(table, str(folder / "t"), max_rows_per_file=7)
    write_captions(dataset, folder, lambda num_bytes: num_bytes < 2**20)
    indices = np.array(data.draw(st.lists(st.integers(0, len(texts) - 1))), np.int64)
    expected = [texts[index] or None for index in indices]
    for store in (load_captions(dataset, 2**20), memmap_captions(folder), TableCaptions(dataset)):
        assert store.take(indices) == expected
    with pytest.raises(TooLargeError):
        load_captions(dataset, 7)


def test_captions_fill_the_cache_up_to_its_limit_only(tmp_path, monkeypatch):
    """Captions of a table share the cache with what another process uses."""
    monkeypatch.setattr("stbir.gallery.local_cache._MAX_IN_MEMORY_BYTES", 0)
    folder, cache = Folder(str(tmp_path / "gallery")), CacheConfig(tmp_path / "cache", 500_000)
    publish_captions(folder, pa.array(CAPTIONS))
    used = CacheFolder(cache.path, f"{'0' * 16}-{'0' * 32}", cache.max_bytes)
    used.acquire()
    (used.path / "data").write_bytes(bytes(400_000))
    assert captions_of_hits(folder, cache) == EXPECTED
    assert not list(tmp_path.rglob("texts*"))
    del used
    assert captions_of_hits(folder, cache) == EXPECTED
    assert list(tmp_path.rglob("texts.utf8"))
