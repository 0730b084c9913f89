"""Galleries written with Lance, and searched exactly and with an index."""

import uuid

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir.config.choices import INDEX_KINDS
from stbir.errors import InputError
from stbir.gallery.gallery import Gallery, open_gallery, open_table
from stbir.gallery.index import IndexPlan, build_index, plan_index
from stbir.gallery.metadata import Metadata
from stbir.gallery.publish import MIN_RECALL, prepare, publish
from stbir.gallery.recall import RecallEvaluator, make_recall_queries
from stbir.gallery.rows import Rows
from stbir.gallery.table import schema, table_uri
from stbir.storage.folder import Folder

DIM = 16
DIGEST, OTHER_DIGEST = "sha256:a", "sha256:b"
CATEGORIES = ["chair", "it's", 'a "quoted" one', "x' OR 'a'='a"]


def unit_vectors(rows: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_table(vectors: np.ndarray, start: int = 0) -> pa.Table:
    numbers = range(start, start + len(vectors))
    columns = [
        pa.array([f"photo-{i}" for i in numbers]),
        pa.array([CATEGORIES[i % len(CATEGORIES)] for i in numbers]),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
        pa.array([f"jpeg {i}".encode() for i in numbers]),
        pa.array([f"{i:064x}" for i in numbers]),
    ]
    return pa.Table.from_arrays(columns, schema=schema(DIM))


def write_table(folder: Folder, vectors: np.ndarray) -> int:
    return lance.write_dataset(make_table(vectors), table_uri(folder), mode="overwrite").version


def publish_gallery(
    folder: Folder, vectors: np.ndarray, plan: IndexPlan | None = None, digest: str = DIGEST
) -> Gallery:
    candidate = prepare(folder, write_table(folder, vectors), digest, plan)
    publish(folder, candidate, {"in": len(vectors), "ok": len(vectors), "quarantined": 0})
    return open_gallery(folder.uri, digest)


def brute_force_search(
    photos: np.ndarray, query: np.ndarray, k: int, category: str | None = None
) -> list[tuple[str, float]]:
    scored = []
    for i, photo in enumerate(photos):
        if category is None or CATEGORIES[i % len(CATEGORIES)] == category:
            cosine = float(np.dot(photo.astype(float), query) / np.linalg.norm(query))
            scored.append((f"photo-{i}", cosine))
    return sorted(scored, key=lambda pair: -pair[1])[:k]


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture(params=["exact", "IVF_SQ"])
def plan(request) -> IndexPlan | None:
    return None if request.param == "exact" else IndexPlan(4, 4, request.param)


def test_search_matches_brute_force(folder, plan):
    photos, queries = unit_vectors(600), 3 * unit_vectors(5, seed=1)
    gallery = publish_gallery(folder, photos, plan)
    for category in (None, *CATEGORIES):
        for hits, query in zip(gallery.search(queries, 7, category), queries, strict=True):
            expected = brute_force_search(photos, query, 7, category)
            assert [hit.photo_id for hit in hits] == [photo_id for photo_id, _ in expected]
            assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-5)
            assert category is None or {hit.category for hit in hits} == {category}


@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_all_index_kinds_return_exact_scores(folder, kind):
    photos = unit_vectors(600)
    dataset = open_table(folder, write_table(folder, photos))
    build_index(dataset, plan := IndexPlan(4, 4, kind))
    hits = Gallery(dataset, folder, metadata=Metadata.of(DIGEST, plan)).search(photos[17:18], 5)[0]
    assert (hits[0].photo_id, len(hits)) == ("photo-17", 5)
    for hit in hits:
        assert hit.score == pytest.approx(photos[int(hit.photo_id[6:])] @ photos[17], abs=1e-5)


def test_k_is_limited_to_the_number_of_matches(folder, plan):
    gallery = publish_gallery(folder, unit_vectors(300), plan)
    assert [len(hits) for hits in gallery.search(unit_vectors(2, seed=1), 1000)] == [300, 300]
    assert len(gallery.search(unit_vectors(1, seed=1), 1000, "chair")[0]) == 75


def test_gallery_of_one_photo(folder):
    gallery = publish_gallery(folder, unit_vectors(1))
    assert [hit.photo_id for hit in gallery.search(unit_vectors(1, seed=1), 10)[0]] == ["photo-0"]
    assert (gallery.count, gallery.categories) == (1, ["chair"])


def test_ties_keep_the_order_of_the_table(folder):
    gallery = publish_gallery(folder, np.repeat(unit_vectors(1), 20, axis=0))
    hits = gallery.search(unit_vectors(1), 3)[0]
    assert [hit.photo_id for hit in hits] == ["photo-0", "photo-1", "photo-2"]


def test_vector_and_thumbnail_by_id(folder):
    vectors = unit_vectors(30)
    gallery = publish_gallery(folder, vectors)
    assert np.array_equal(gallery.vector("photo-17"), vectors[17])
    assert gallery.vector("unknown") is None
    assert gallery.thumbnail("photo-17") == b"jpeg 17"
    assert gallery.thumbnail("photo-17' OR '1'='1") is None


@given(st.lists(st.text(), min_size=1, max_size=30, unique=True), st.text())
def test_row_of_a_photo_is_found_among_ids_in_any_order(ids: list[str], other: str) -> None:
    table = pa.table({"photo_id": ids, "category": ["chair"] * len(ids)})
    dataset = lance.write_dataset(table, f"memory://{uuid.uuid4().hex}")
    rows = Rows(dataset)
    assert [rows.index_of(photo_id) for photo_id in ids] == list(range(len(ids)))
    assert rows.index_of(other) == (ids.index(other) if other in ids else None)


class CountedIds:
    """The ids of rows, and the number of those that were read."""

    def __init__(self, ids: pa.Array) -> None:
        self.ids, self.num_read = ids, 0

    def __getitem__(self, row: int) -> pa.Scalar:
        self.num_read += 1
        return self.ids[row]


def test_row_of_a_photo_is_found_by_reading_few_ids(folder):
    write_table(folder, unit_vectors(1000))
    rows = Rows(open_table(folder))
    rows.photo_ids = ids = CountedIds(rows.photo_ids)
    assert rows.index_of("photo-617") == 617
    assert ids.num_read <= 12  # log2(1000), and two


def test_missing_thumbnail_column_gives_no_thumbnail(folder):
    table = make_table(unit_vectors(8)).select(["photo_id", "category", "embedding"])
    dataset = lance.write_dataset(table, table_uri(folder))
    assert Gallery(dataset, folder, metadata=Metadata(DIGEST)).thumbnail("photo-3") is None


@pytest.mark.parametrize(
    ("vectors", "k", "category", "message"),
    [
        (unit_vectors(1), 0, None, "k: 0"),
        (unit_vectors(1)[:, :4], 3, None, "vectors: shape"),
        (unit_vectors(1), 3, "sofa", "category: no category 'sofa'; available: .*chair"),
        (unit_vectors(1), 3, "chair' OR 'a'='a", "category"),
    ],
)
def test_invalid_query_is_rejected(folder, vectors, k, category, message):
    gallery = publish_gallery(folder, unit_vectors(8))
    with pytest.raises(InputError, match=message):
        gallery.search(vectors, k, category)


def test_gallery_of_another_checkpoint_is_rejected_with_both_digests(folder):
    publish_gallery(folder, unit_vectors(8), digest=OTHER_DIGEST)
    with pytest.raises(InputError, match=f"{OTHER_DIGEST}.*{DIGEST}"):
        open_gallery(folder.uri, DIGEST)


def test_missing_gallery_or_table_is_an_input_error(folder):
    with pytest.raises(InputError, match="embed_gallery"):
        open_gallery(f"{folder.uri}/nowhere", DIGEST)
    publish_gallery(folder, unit_vectors(8))
    folder.child("photos.lance").remove()
    with pytest.raises(InputError, match=r"photos\.lance"):
        open_gallery(folder.uri, DIGEST)


def test_readers_keep_their_version_and_a_rollback_restores_the_checkpoint(folder):
    old = publish_gallery(folder, unit_vectors(8))
    new = publish_gallery(folder, unit_vectors(20, seed=1), digest=OTHER_DIGEST)
    assert (old.count, new.count) == (8, 20)
    assert new.version > old.version
    assert old.thumbnail("photo-3") == b"jpeg 3"
    open_table(folder, new.version).tags.update("published", old.version)
    assert open_gallery(folder.uri, DIGEST).version == old.version
    with pytest.raises(InputError, match=DIGEST):
        open_gallery(folder.uri, OTHER_DIGEST)


def test_unpublished_version_is_not_opened(folder):
    published = publish_gallery(folder, unit_vectors(8))
    prepare(folder, write_table(folder, unit_vectors(20, seed=1)), DIGEST, None)
    assert open_gallery(folder.uri, DIGEST).version == published.version


def test_gallery_on_s3(s3):
    photos, query = unit_vectors(50), unit_vectors(1, seed=1)
    gallery = publish_gallery(Folder(f"{s3}/retrieval-gallery"), photos)
    expected = [photo_id for photo_id, _ in brute_force_search(photos, query[0], 5)]
    assert [hit.photo_id for hit in gallery.search(query, 5)[0]] == expected
    assert gallery.thumbnail("photo-3") == b"jpeg 3"


def test_recall_of_exact_search_is_one(folder):
    assert prepare(folder, write_table(folder, unit_vectors(500)), DIGEST, None).recall == 1


def test_full_probe_index_reaches_the_minimum_recall(folder):
    candidate = prepare(folder, write_table(folder, unit_vectors(2000)), DIGEST, IndexPlan(4, nprobes=4))
    assert MIN_RECALL <= candidate.recall <= 1


def test_recall_matches_brute_force_and_prepare_raises_nprobes(folder):
    photos = unit_vectors(1000)
    candidate = prepare(folder, write_table(folder, photos), DIGEST, IndexPlan(16, nprobes=1))
    assert candidate.recall >= MIN_RECALL
    assert candidate.metadata.nprobes > 1
    dataset = open_table(folder, candidate.version)
    gallery = Gallery(dataset, folder, metadata=Metadata.of(DIGEST, IndexPlan(16, nprobes=1)))
    queries = make_recall_queries(dataset)
    recalls = RecallEvaluator(dataset, queries).evaluate(gallery)
    assert recalls["between"]["@10"] < MIN_RECALL
    for kind, k in (("between", 10), ("drawn", 10), ("photo", 100)):
        counts = [
            len({hit.photo_id for hit in hits} & {f"photo-{i}" for i in np.argsort(-photos @ query)[:k]})
            for query, hits in zip(queries[kind], gallery.search(queries[kind], k), strict=True)
        ]
        assert recalls[kind][f"@{k}"] == pytest.approx(sum(counts) / len(counts) / k, abs=0.01)


def test_recall_accepts_any_of_equal_photos(folder):
    version = write_table(folder, np.repeat(unit_vectors(10), 40, axis=0))
    assert prepare(folder, version, DIGEST, IndexPlan(1, nprobes=1)).recall == 1


def test_index_plan_depends_on_the_number_of_photos():
    assert plan_index(1000, threshold=1000) is None
    assert plan_index(1001, threshold=1000) == IndexPlan(15, 15)
    large, huge = plan_index(1_000_000), plan_index(10**9)
    assert large is not None
    assert huge is not None
    assert large.nprobes < large.partitions
    assert (large.kind, huge.kind) == ("IVF_SQ", "IVF_RQ")
    assert huge.size_bytes(10**9, 512) < large.size_bytes(10**9, 512) / 5


def test_digest_depends_on_the_content_only(folder):
    def digest(name: str, vectors: np.ndarray) -> str:
        child = folder.child(name)
        return publish(child, prepare(child, write_table(child, vectors), DIGEST, None), {}).digest

    assert digest("a", unit_vectors(30)) == digest("b", unit_vectors(30))
    assert digest("a", unit_vectors(30)) != digest("c", unit_vectors(30, seed=1))
