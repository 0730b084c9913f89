"""The texts of photos: those of the table, however they are kept, and none where there are none."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from stbir.gallery.caption_store import TextsInTable, TooManyError, texts_held, texts_mapped, write_texts
from stbir.gallery.gallery import open_gallery, open_table, table_uri
from stbir.gallery.index import IndexPlan
from stbir.gallery.local_cache import Cache
from stbir.gallery.publish import prepare, publish
from stbir.storage.folder import Folder
from tests.gallery.test_gallery import OURS, rows_of, unit

PLAN = IndexPlan(4, 4)
SAID = ["a red chair", None, "ein Stuhl – größer, 椅子", "", "x\0y", "a" * 3000]


def said(n: int) -> str | None:
    return SAID[n % len(SAID)]


def gallery_with(folder: Folder, texts: pa.Array, plan: IndexPlan | None) -> None:
    table = rows_of(unit(len(texts))).append_column("text", texts)
    version = lance.write_dataset(table, table_uri(folder), mode="overwrite").version
    publish(folder, prepare(folder, version, OURS, plan), {"ok": len(texts)})


def texts_of_hits(folder: Folder, cache: Cache | None = None) -> dict[int, str | None]:
    """By the number of the photo."""
    [hits] = open_gallery(folder.uri, OURS, cache=cache).search(unit(1, seed=1), 300)
    return {int(hit.photo_id.removeprefix("photo-")): hit.text for hit in hits}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("plan", [None, PLAN], ids=["exact", "index"])
def test_every_hit_tells_its_own_text(tmp_path, plan, kind):
    folder = Folder(str(tmp_path))
    gallery_with(folder, pa.array([said(n) for n in range(300)], kind), plan)
    assert texts_of_hits(folder) == {n: said(n) or None for n in range(300)}


def test_texts_stay_with_their_photos_after_deletions(tmp_path):
    folder = Folder(str(tmp_path))
    gallery_with(folder, pa.array([f"text {n}" for n in range(300)]), None)
    dataset = open_table(folder)
    dataset.delete("photo_id IN ('photo-3', 'photo-50')")
    publish(folder, prepare(folder, open_table(folder).version, OURS, None), {"ok": 298})
    assert texts_of_hits(folder) == {n: f"text {n}" for n in range(300) if n not in (3, 50)}


def test_a_gallery_made_before_there_were_texts_has_none(tmp_path):
    folder = Folder(str(tmp_path))
    version = lance.write_dataset(rows_of(unit(300)), table_uri(folder)).version
    publish(folder, prepare(folder, version, OURS, None), {"ok": 300})
    assert set(texts_of_hits(folder).values()) == {None}


def test_a_column_of_that_name_that_holds_numbers_is_no_text(tmp_path):
    folder = Folder(str(tmp_path))
    gallery_with(folder, pa.array(range(300)), None)
    assert set(texts_of_hits(folder).values()) == {None}


def test_many_texts_lie_on_disk_and_are_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr("stbir.gallery.gallery._HELD_BYTES", 0)
    folder, cache = Folder(str(tmp_path / "gallery")), Cache(tmp_path / "cache")
    gallery_with(folder, pa.array([said(n) for n in range(300)]), PLAN)
    want = {n: said(n) or None for n in range(300)}
    assert texts_of_hits(folder, cache) == want
    [written] = cache.path.rglob("texts.utf8")
    monkeypatch.setattr("stbir.gallery.local_cache.write_texts", lambda *_: pytest.fail("written again"))
    assert texts_of_hits(folder, cache) == want
    assert written.stat().st_size == sum(len((said(n) or "").encode()) for n in range(300))


@pytest.mark.parametrize("most_bytes", [None, 100])
def test_where_there_is_no_room_they_are_read_from_the_table(tmp_path, monkeypatch, most_bytes):
    monkeypatch.setattr("stbir.gallery.gallery._HELD_BYTES", 0)
    folder = Folder(str(tmp_path / "gallery"))
    cache = None if most_bytes is None else Cache(tmp_path / "cache", most_bytes)
    gallery_with(folder, pa.array([said(n) for n in range(300)]), None)
    assert texts_of_hits(folder, cache) == {n: said(n) or None for n in range(300)}
    assert not list(tmp_path.rglob("texts.utf8"))


@settings(max_examples=40)
@given(texts=some.lists(some.none() | some.text(max_size=20), min_size=1, max_size=40), data=some.data())
def test_held_mapped_and_read_say_the_same(tmp_path_factory, texts, data):
    folder = tmp_path_factory.mktemp("texts")
    table = pa.table({"text": pa.array(texts, pa.string())})
    dataset = lance.write_dataset(table, str(folder / "t"), max_rows_per_file=7)
    write_texts(dataset, folder, 2**20)
    places = np.array(data.draw(some.lists(some.integers(0, len(texts) - 1))), np.int64)
    want = [texts[place] or None for place in places]
    for known in (texts_held(dataset, 2**20), texts_mapped(folder), TextsInTable(dataset)):
        assert known.at(places) == want
    with pytest.raises(TooManyError):
        texts_held(dataset, 7)
