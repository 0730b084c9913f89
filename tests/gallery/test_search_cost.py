"""What a search costs besides its result: memory of filters, candidates read, and memory after a version."""

import gc
import tracemalloc
import weakref
from collections.abc import Iterator

import lance
import numpy as np
import pyarrow as pa
import pytest

from stbir.gallery.arrays import Features, Indices
from stbir.gallery.filters import Condition, render_filter
from stbir.gallery.gallery import Gallery, open_gallery, open_table
from stbir.gallery.index import IndexPlan, build_index
from stbir.gallery.lance_index import LanceIndex, Tables
from stbir.gallery.publish import prepare, publish
from stbir.gallery.rows import Rows, load_vectors
from stbir.gallery.search import IndexSearch
from stbir.gallery.table import table_uri
from stbir.storage.folder import Folder
from tests.gallery.test_gallery import DIGEST, DIM, brute_force_search, make_table, unit_vectors

NUM_ROWS = 2000
PHOTOS, QUERY = unit_vectors(NUM_ROWS), unit_vectors(1, seed=1)
PLAN = IndexPlan(8, 8)


@pytest.fixture
def folder(tmp_path) -> Folder:
    folder = Folder(str(tmp_path / "gallery"))
    table = make_table(PHOTOS).append_column("number", pa.array(range(NUM_ROWS)))
    lance.write_dataset(table, table_uri(folder))
    return folder


def publish_table(folder: Folder, plan: IndexPlan | None) -> Gallery:
    publish(folder, prepare(folder, open_table(folder).version, DIGEST, plan), {"ok": NUM_ROWS})
    return open_gallery(folder.uri, DIGEST)


def search_below(gallery: Gallery, limit: int) -> list[str]:
    [hits] = gallery.search(QUERY, 9, where=[Condition("number", "lt", limit)])
    return [hit.photo_id for hit in hits]


def expected(limit: int) -> list[str]:
    return [photo_id for photo_id, _ in brute_force_search(PHOTOS[:limit], QUERY[0], 9)]


@pytest.mark.parametrize("limit", [5, 499, 501, 1900, NUM_ROWS])
def test_exact_search_with_a_filter_of_any_share_matches_brute_force(folder, limit):
    assert search_below(publish_table(folder, None), limit) == expected(limit)


def test_exact_search_copies_no_rows_for_a_filter_that_most_rows_match(folder):
    gallery = publish_table(folder, None)
    search_below(gallery, 1900)  # the matches are cached
    tracemalloc.start()
    try:
        search_below(gallery, 1900)
        assert tracemalloc.get_traced_memory()[1] < PHOTOS.nbytes / 2
    finally:
        tracemalloc.stop()


class CountedVectors:
    """Vectors that record the largest number of rows read at once."""

    def __init__(self, photo_ND: Features) -> None:
        self._photo_ND, self.max_rows = photo_ND, 0

    def __getitem__(self, indices: Indices, /) -> Features:
        self.max_rows = max(self.max_rows, len(indices))
        return self._photo_ND[indices]


@pytest.mark.parametrize("share", [0.5, 0.05, 0.01])
def test_candidates_of_a_filtered_search_are_bounded_by_bytes(folder, monkeypatch, share):
    max_rows = 300
    monkeypatch.setattr("stbir.gallery.rows.EXACT_SCORING_LIMIT", 10)
    monkeypatch.setattr("stbir.gallery.lance_index._MAX_CANDIDATE_BYTES", max_rows * 4 * DIM)
    dataset = open_table(folder)
    build_index(dataset, PLAN)
    vectors = CountedVectors(load_vectors(dataset))
    tables, rows = Tables(dataset, dataset, frozenset()), Rows(dataset)
    search = IndexSearch(tables, rows, vectors, LanceIndex(tables, rows, PLAN))
    limit = int(share * NUM_ROWS)
    filter = render_filter([Condition("number", "lt", limit)], dataset.schema)
    [ranking] = search.nearest(QUERY, 9, filter)
    assert [f"photo-{row}" for row in ranking.indices] == expected(limit)
    assert vectors.max_rows <= max_rows


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("plan", [None, PLAN], ids=["exact", "index"])
def test_dropped_version_is_freed_at_once(folder, plan, no_garbage_collection):
    gallery = publish_table(folder, plan)
    assert search_below(gallery, 1900) == expected(1900)
    assert search_below(gallery, 100) == expected(100)
    parts = [weakref.ref(part) for part in (gallery, gallery.rows, gallery.searcher)]
    del gallery
    assert [part() for part in parts] == [None] * len(parts)


def test_vectors_of_filters_are_cached_within_a_limit_of_bytes(folder, monkeypatch):
    monkeypatch.setattr("stbir.gallery.search._VECTOR_CACHE_BYTES", limit := 100 * (5 * DIM + 8))
    gallery = publish_table(folder, PLAN)
    for count in (50, 60, 70, 99, 1500):
        assert search_below(gallery, count) == expected(count)
        assert gallery.searcher._filtered.size_bytes <= limit  # type: ignore[attr-defined]
    assert np.array_equal(gallery.vector("photo-7"), PHOTOS[7])
