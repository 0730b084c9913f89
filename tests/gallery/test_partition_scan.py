"""Candidates from the partitions of an index in the local cache, for every way that a version comes about."""

import lance
import pyarrow as pa
import pytest

from stbir.gallery.filters import Condition
from stbir.gallery.gallery import Gallery, open_table
from stbir.gallery.index import IndexPlan, build_index
from stbir.gallery.lance_index import LanceIndex
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.metadata import Metadata
from stbir.gallery.partition_scan import PartitionScan
from stbir.gallery.table import table_uri
from stbir.storage.folder import Folder
from tests.gallery.test_gallery import DIGEST, brute_force_search, make_table, unit_vectors

NUM_ROWS = 600
PHOTOS, QUERIES = unit_vectors(NUM_ROWS), unit_vectors(3, seed=1)
PLAN = IndexPlan(8, 8)


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> lance.LanceDataset:
    monkeypatch.setattr("stbir.gallery.rows.EXACT_SCORING_LIMIT", 10)
    table = make_table(PHOTOS).append_column("number", pa.array(range(NUM_ROWS)))
    lance.write_dataset(table, table_uri(Folder(str(tmp_path))))
    dataset = open_table(Folder(str(tmp_path)))
    build_index(dataset, PLAN)
    return dataset


def open_cached(dataset: lance.LanceDataset, tmp_path, plan: IndexPlan = PLAN) -> Gallery:
    cache = CacheConfig(tmp_path / "cache")
    return Gallery(dataset, Folder(str(tmp_path)), cache, Metadata.of(DIGEST, plan))


def assert_finds_the_best(gallery: Gallery, rows: range, where: list[Condition]) -> None:
    for hits, query in zip(gallery.search(QUERIES, 9, where=where), QUERIES, strict=True):
        expected = brute_force_search(PHOTOS[rows.start : rows.stop], query, 9)
        best = [f"photo-{int(photo_id[6:]) + rows.start}" for photo_id, _ in expected]
        assert [hit.photo_id for hit in hits] == best


@pytest.mark.parametrize(("limit", "nprobes"), [(11, 1), (11, 8), (60, 8), (300, 8), (NUM_ROWS, 8)])
def test_filtered_candidates_equal_brute_force(dataset, tmp_path, limit, nprobes):
    """With one probe, the nearest partitions have fewer matches than hits."""
    gallery = open_cached(dataset, tmp_path, IndexPlan(8, nprobes))
    assert isinstance(gallery.searcher._index, PartitionScan)  # type: ignore[attr-defined]
    assert_finds_the_best(gallery, range(limit), [Condition("number", "lt", limit)])
    assert len(gallery.search(QUERIES, NUM_ROWS)[0]) == NUM_ROWS


def test_deleted_and_appended_rows(dataset, tmp_path):
    dataset.delete("number < 100")
    assert_finds_the_best(open_cached(dataset, tmp_path), range(100, NUM_ROWS), [])
    dataset.insert(make_table(PHOTOS[:100]).append_column("number", pa.array(range(100))))
    unindexed = open_cached(dataset, tmp_path)
    assert isinstance(unindexed.searcher._index, LanceIndex)  # type: ignore[attr-defined]
    assert_finds_the_best(unindexed, range(NUM_ROWS), [])
    dataset.optimize.optimize_indices()
    indexed = open_cached(dataset, tmp_path)
    assert isinstance(indexed.searcher._index, PartitionScan)  # type: ignore[attr-defined]
    assert_finds_the_best(indexed, range(NUM_ROWS), [])


def test_a_new_index_of_the_same_rows_has_its_own_files(dataset, tmp_path):
    for plan in (PLAN, IndexPlan(4, 4)):
        build_index(dataset, plan)
        assert_finds_the_best(open_cached(dataset, tmp_path, plan), range(NUM_ROWS), [])
    assert len(list((tmp_path / "cache").rglob("codes.i8"))) == 2


def test_a_second_gallery_reads_the_same_files(dataset, tmp_path):
    first = open_cached(dataset, tmp_path)
    [codes] = (tmp_path / "cache").rglob("codes.i8")
    written = codes.stat()
    second = open_cached(dataset, tmp_path)
    assert codes.stat() == written
    assert codes.stat().st_size == PHOTOS.size
    [expected], [hits] = (each.search(QUERIES[:1], 9) for each in (first, second))
    assert hits == expected
