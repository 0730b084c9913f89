"""What publishing measures: recall and latency, also under filters, and galleries without photos."""

import math

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir.gallery import latency
from stbir.gallery.filters import Condition, render_filter
from stbir.gallery.gallery import Gallery, open_gallery, open_table
from stbir.gallery.index import IndexPlan
from stbir.gallery.metadata import read_metadata
from stbir.gallery.publish import prepare, publish
from stbir.gallery.recall import (
    RecallEvaluator,
    best_scores,
    exact_scores,
    make_recall_queries,
    recall_interval,
    share_filters,
)
from stbir.gallery.table import fragment_ids, table_uri
from stbir.gallery.table_writer import delete_photos
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.gallery.test_gallery import DIGEST, make_table, publish_gallery, unit_vectors

PLAN = IndexPlan(8, 8)
FILTERS = {"filter 50.0%", "filter 1.0%", "filter 0.1%"}


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(str(tmp_path / "gallery"))


@pytest.fixture
def everything_is_slow(monkeypatch) -> None:
    monkeypatch.setattr("stbir.gallery.publish.MAX_SLOWDOWN", 0)


def publish_latest(folder: Folder, plan: IndexPlan | None = None) -> Gallery:
    candidate = prepare(folder, open_table(folder).version, DIGEST, plan)
    publish(folder, candidate, {"ok": open_table(folder).count_rows()})
    return open_gallery(folder.uri, DIGEST)


@pytest.mark.parametrize("num_rows", [1, 300, 5000])
def test_share_filters_keep_their_share_of_the_photos(folder, num_rows):
    publish_gallery(folder, unit_vectors(num_rows))
    dataset = open_table(folder)
    counts = {
        name: dataset.count_rows(f"{each.column} <= '{each.value}'")
        for name, [each] in share_filters(dataset).items()
    }
    shares = {"filter 50.0%": 0.5, "filter 1.0%": 0.01, "filter 0.1%": 0.001}
    assert counts == {name: math.ceil(share * num_rows) for name, share in shares.items()}


@pytest.mark.parametrize(
    "content", [None, pa.nulls(300, pa.string()), pa.array(range(300)), pa.array([None, *["a\0"] * 299])]
)
def test_gallery_with_any_content_column_is_published(folder, content):
    table = make_table(unit_vectors(300)).drop_columns(["content"])
    table = table if content is None else table.append_column("content", content)
    lance.write_dataset(table, table_uri(folder))
    assert publish_latest(folder).count == 300


def test_manifest_has_recall_and_latency_under_filters(folder):
    publish_gallery(folder, unit_vectors(2000), PLAN)
    details = read_manifest(folder, "gallery").details
    assert details["recalls"].keys() >= FILTERS
    assert details["latencies"].keys() == FILTERS | {"no filter"}
    assert all(each.keys() == {"p95_ms"} for each in details["latencies"].values())
    publish_gallery(folder, unit_vectors(2000), PLAN)
    latencies = read_manifest(folder, "gallery").details["latencies"].values()
    assert all(each.keys() == {"p95_ms", "published_p95_ms"} for each in latencies)


def test_gate_counts_photos_that_a_filtered_search_misses(folder, monkeypatch):
    monkeypatch.setattr("stbir.gallery.rows.EXACT_SCORING_LIMIT", 10)
    publish_gallery(folder, unit_vectors(2000), PLAN)
    dataset = open_table(folder, "published")
    filters, queries = share_filters(dataset), make_recall_queries(dataset)
    gallery = open_gallery(folder.uri, DIGEST)
    assert RecallEvaluator(dataset, queries, filters).evaluate(gallery)["filter 50.0%"]["@10"] == 1
    # Searches through rows that all fail the filter.
    monkeypatch.setattr("stbir.gallery.lance_index.MIN_CANDIDATES_PER_HIT", 0)
    monkeypatch.setattr(IndexPlan, "num_candidates", lambda self, k: k // 10)
    assert RecallEvaluator(dataset, queries, filters).evaluate(gallery)["filter 50.0%"]["@10"] < 0.9


def test_index_that_has_become_slow_is_replaced(folder, everything_is_slow):
    publish_gallery(folder, unit_vectors(2000), PLAN)
    lance.write_dataset(make_table(unit_vectors(100, seed=2), start=2000), table_uri(folder), mode="append")
    candidate = prepare(folder, open_table(folder).version, DIGEST, IndexPlan(4, 4))
    assert (candidate.metadata.plan, candidate.unindexed_rows) == (IndexPlan(4, 4), 0)
    assert read_metadata(open_table(folder, candidate.version)).plan == IndexPlan(4, 4)
    assert candidate.is_slow  # a new index is no faster


def test_first_version_and_exact_search_are_never_slow(folder, everything_is_slow):
    assert not prepare(folder, _write(folder, 2000), DIGEST, PLAN).is_slow
    publish_latest(folder)
    assert not prepare(folder, _write(folder, 2000), DIGEST, None).is_slow


def _write(folder: Folder, num_rows: int) -> int:
    return lance.write_dataset(
        make_table(unit_vectors(num_rows)), table_uri(folder), mode="overwrite"
    ).version


MILLISECONDS = st.floats(0.1, 1e4)


@given(MILLISECONDS, MILLISECONDS, st.floats(0.01, 100))
def test_slowdown_allows_for_more_rows_and_ignores_milliseconds(p95_ms, published_p95_ms, row_ratio):
    latencies = {"a": {"p95_ms": p95_ms, "published_p95_ms": published_p95_ms}, "new": {"p95_ms": 1e9}}
    worst = latency.slowdown(latencies, row_ratio)
    assert worst == pytest.approx(p95_ms / (max(1, row_ratio) * published_p95_ms + 10))
    assert latency.slowdown({"new": {"p95_ms": 1e9}}, row_ratio) == 0


def test_filter_on_a_column_of_the_new_version_is_not_compared(folder, tmp_path):
    old = publish_gallery(Folder(str(tmp_path / "old")), unit_vectors(100))
    lance.write_dataset(
        make_table(unit_vectors(100)).append_column("price", pa.array(range(100))), table_uri(folder)
    )
    filters = {"cheap": [Condition("price", "lt", 10)], "no filter": []}
    latencies = latency.measure_latencies(publish_latest(folder), old, unit_vectors(5), filters)
    assert [each.keys() for each in latencies.values()] == [{"p95_ms"}, {"p95_ms", "published_p95_ms"}]


@pytest.mark.parametrize("plan", [None, PLAN], ids=["exact", "index"])
def test_gallery_without_photos_is_published_searched_and_filled_again(folder, plan):
    table = make_table(unit_vectors(300)).append_column("text", pa.array(["a caption"] * 300))
    lance.write_dataset(table, table_uri(folder))
    publish_latest(folder, plan)
    delete_photos(folder, [f"photo-{i}" for i in range(300)])
    gallery, queries = publish_latest(folder), unit_vectors(2, seed=1)
    assert (gallery.count, gallery.categories, read_manifest(folder, "gallery").counts["ok"]) == (0, [], 0)
    assert gallery.search(queries, 5) == [[], []]
    assert gallery.search(queries, 5, where=[Condition("photo_id", "eq", "photo-1")]) == [[], []]
    assert (gallery.vector("photo-1"), gallery.thumbnail("photo-1")) == (None, None)
    lance.write_dataset(table, table_uri(folder), mode="append")
    gallery = publish_latest(folder, plan)
    [hits] = gallery.search(unit_vectors(300)[7:8], 5)
    assert (gallery.count, hits[0].photo_id, hits[0].text) == (300, "photo-7", "a caption")
    assert np.isclose(hits[0].score, 1)


@pytest.mark.parametrize(("where", "num_found"), [([], 20), (["photo-40"], 20), (["photo-9", "z"], 0)])
def test_scores_of_shares_of_the_fragments_give_those_of_the_table(folder, where, num_found):
    uri = table_uri(folder)
    dataset = lance.write_dataset(make_table(unit_vectors(450)), uri, max_rows_per_file=100)
    filter = render_filter([Condition("photo_id", "ge", value) for value in where], dataset.schema)
    numbers = fragment_ids(dataset)
    assert len(numbers) == 5
    query_QD = unit_vectors(7)
    shares = [exact_scores(dataset, query_QD, 20, filter, numbers[start::2]) for start in (0, 1)]
    expected = exact_scores(dataset, query_QD, 20, filter)
    assert expected.shape == (7, num_found)
    np.testing.assert_allclose(best_scores(np.concatenate(shares, axis=1), 20), expected, atol=1e-6)


@given(st.floats(0, 1), st.integers(1, 1000))
def test_the_interval_of_recall_is_that_of_wilson(recall, num_queries):
    """Its ends are the recalls from which the measured one is 1.96 standard errors away."""
    low, high = recall_interval({"worst": {"@10": recall}, "other": {"@10": 1.0}}, num_queries)
    assert 0 <= low <= recall + 1e-4
    assert recall - 1e-4 <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(recall - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / num_queries), abs=2e-3)


def test_the_interval_of_an_empty_gallery_says_nothing():
    assert recall_interval({"x": {"@10": 1.0}}, 0) == (0.0, 1.0)


def test_the_manifest_has_the_interval_of_the_worst_recall(folder):
    publish_gallery(folder, unit_vectors(300))
    details = read_manifest(folder, "gallery").details
    assert details["recall_interval"] == [0.963, 1.0]
    assert details["recall"] == 1
