"""One suite of what a gallery does, on each store of vectors."""

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stbir.config.choices import EXPORT_FORMATS
from stbir.embedding.gallery_update import plan_update, update_table
from stbir.errors import InputError, JobFailedError
from stbir.gallery import export_import, versions
from stbir.gallery.existing_rows import ROW, ExistingRows, read_rows
from stbir.gallery.filters import OPS, Condition
from stbir.gallery.fingerprint import HASH_TYPE, fingerprint, short_hashes
from stbir.gallery.gallery import Gallery, open_gallery, open_table
from stbir.gallery.gated_publish import index_and_publish
from stbir.gallery.identity_store import IdentityStore
from stbir.gallery.index import IndexPlan
from stbir.gallery.origin import read_origin, write_origin
from stbir.gallery.publish import prepare, publish
from stbir.gallery.steering import Penalty, Steering, search_steered
from stbir.gallery.store import TableWriter, open_store
from stbir.gallery.table import schema
from stbir.gallery.table_writer import (
    delete_intermediate_versions,
    delete_photos,
    open_writer,
    published_version,
)
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock
from stbir.storage.manifest import read_manifest
from tests.embedding.test_partitioned_update import SPACE, ListedPhotos, embed

pytestmark = pytest.mark.usefixtures("few_queries")
DIM = 16
DIGEST, OTHER_DIGEST = "sha256:a", "sha256:b"
CATEGORIES = ["chair", "it's", 'a "quoted" one', "back\\slash"]
FIELDS = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("stock", pa.int64()),
        pa.field("is new", pa.bool_()),
        pa.field("made", pa.timestamp("us", tz="UTC")),
        pa.field("ratio", pa.float32()),
    ]
)
SCHEMA = schema(DIM, FIELDS)
START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = itertools.count()
STORES = ("lance", "milvus")


def new_folder(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    name = f"gallery{next(NAMES)}"
    root = str(tmp_path) if store == "lance" else request.getfixturevalue("milvus")
    return Folder(f"{root}/{name}")


@pytest.fixture(params=STORES)
def folder(request, tmp_path) -> Folder:
    return new_folder(request.param, tmp_path, request)


@pytest.fixture(params=["exact", "index"])
def plan(request) -> IndexPlan | None:
    return None if request.param == "exact" else IndexPlan(4, 4)


def unit_vectors(rows: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def row(n: int) -> dict[str, Any]:
    """The columns of a photo beside its vector, with nulls and characters that filters escape."""
    return {
        "photo_id": f"shelf/{n} 'é\"",
        "category": CATEGORIES[n % 4],
        "thumbnail": None if n % 7 == 0 else bytes([n % 256, 0, 255]) * 50,
        "content": f"{n * 7919 % 1000:064x}",
        "text": None if n % 5 == 0 else f'photo "{n}"\nof a \\thing',
        "price": None if n % 6 == 0 else n / 3,
        "stock": None if n % 4 == 0 else (n - 20) * 2**40,
        "is new": None if n % 3 == 0 else n % 2 == 0,
        "made": None if n % 9 == 0 else START + timedelta(hours=n, microseconds=n),
        "ratio": n / 10,
    }


def make_table(numbers: range, seed: int = 0, row: Callable[[int], dict[str, Any]] = row) -> pa.Table:
    vectors = unit_vectors(numbers.stop, seed)[numbers.start :]
    rows = [{**row(n), "embedding": vector} for n, vector in zip(numbers, vectors.tolist(), strict=True)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def publish_table(folder: Folder, table: pa.Table, plan: IndexPlan | None = None, **options: Any) -> Gallery:
    digest = options.pop("digest", DIGEST)
    version = open_store(folder).write(table.schema, table.to_batches(max_chunksize=100))
    publish(folder, prepare(folder, version, digest, plan, **options), {"ok": len(table)})
    return open_gallery(folder.uri, digest)


def contents(folder: Folder, version: str | int | None = "published") -> pa.Table:
    """All rows of a version, in order."""
    table = open_table(folder, version)
    batches = [batch.replace_schema_metadata(None) for batch in table.to_batches()]
    return pa.Table.from_batches(batches, schema=table.schema.remove_metadata())


def ids(folder: Folder, version: str | int | None = "published") -> set[str]:
    return set(contents(folder, version)["photo_id"].to_pylist())


def rankings(
    gallery: Gallery, query_QD: np.ndarray, k: int = 7, **options: Any
) -> list[list[tuple[str, Any]]]:
    found = gallery.search(query_QD, k, **options)
    return [[(hit.photo_id, pytest.approx(hit.score, abs=1e-5)) for hit in hits] for hits in found]


def brute_force(table: pa.Table, query_QD: np.ndarray, k: int, keep: Callable[[dict], bool]) -> list[Any]:
    rows = [each for each in table.to_pylist() if keep(each)]
    photo_ND = np.array([each["embedding"] for each in rows], np.float32).reshape(-1, DIM)
    scores_QN = query_QD @ photo_ND.T / np.linalg.norm(query_QD, axis=1, keepdims=True)
    return [
        [(rows[n]["photo_id"], pytest.approx(scores[n], abs=1e-5)) for n in np.argsort(-scores)[:k]]
        for scores in scores_QN
    ]


def test_rows_read_back_equal_and_in_order(folder):
    table = make_table(range(1203))
    publish_table(folder, table)
    assert contents(folder).equals(table)


def test_search_matches_brute_force(folder, plan):
    table, query_QD = make_table(range(300)), 3 * unit_vectors(4, seed=1)
    gallery = publish_table(folder, table, plan)
    assert rankings(gallery, query_QD) == brute_force(table, query_QD, 7, lambda _: True)
    for name in CATEGORIES:
        expected = brute_force(table, query_QD, 7, lambda each, name=name: each["category"] == name)
        assert rankings(gallery, query_QD, category=name) == expected
    assert [len(hits) for hits in gallery.search(query_QD[:1], 1000)] == [300]
    assert (gallery.count, gallery.categories) == (300, sorted(CATEGORIES))


def test_hits_and_photos_have_their_columns(folder):
    table = make_table(range(40))
    gallery, photo = publish_table(folder, table), row(17)
    [[hit]] = gallery.search(unit_vectors(40)[17:18], 1)
    assert (hit.photo_id, hit.category, hit.text) == (photo["photo_id"], photo["category"], photo["text"])
    assert np.array_equal(gallery.vector(hit.photo_id), unit_vectors(40)[17])
    assert gallery.thumbnail(hit.photo_id) == photo["thumbnail"]
    assert gallery.thumbnail(row(7)["photo_id"]) is None
    for column in FIELDS.names:
        value = gallery.value(hit.photo_id, column)
        assert value == (pytest.approx(photo[column]) if column == "ratio" else photo[column])
    for unknown in ("nothing", 'x" or row >= 0 or photo_id == "', "\\"):
        assert gallery.vector(unknown) is None


VALUES = {
    "category": "it's",
    "text": 'photo "12"\nof a \\thing',
    "price": 7.0,
    "stock": 3 * 2**40,
    "is new": True,
    "made": (START + timedelta(hours=13, microseconds=13)).isoformat(),
    "ratio": 0.7,
}
ORDERED = ("lt", "le", "gt", "ge")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
}


@pytest.fixture(scope="module")
def filtered(request, tmp_path_factory) -> dict[str, Gallery]:
    """The same photos, published in each store."""
    path = tmp_path_factory.mktemp("filters")
    table = make_table(range(60))
    return {
        store: publish_table(new_folder(store, path, request), table, IndexPlan(2, 1)) for store in STORES
    }


@pytest.mark.parametrize("column", VALUES)
@pytest.mark.parametrize("op", OPS)
def test_filters_keep_the_rows_that_python_keeps(filtered, op, column):
    if op in ORDERED and column == "is new":
        return
    value: Any = datetime.fromisoformat(VALUES[column]) if column == "made" else VALUES[column]
    value = float(np.float32(value)) if column == "ratio" else value
    given = [VALUES[column], VALUES[column]] if op == "in" else VALUES[column]
    wanted = [value] if op == "in" else value
    table = make_table(range(60)).to_pylist()
    expected = {
        each["photo_id"] for each in table if each[column] is not None and COMPARE[op](each[column], wanted)
    }
    assert expected or (column, op) == ("category", "gt")
    for store, gallery in filtered.items():
        [hits] = gallery.search(unit_vectors(1, seed=1), 100, where=[Condition(column, op, given)])
        assert {hit.photo_id for hit in hits} == expected, store


def test_conditions_are_combined_and_checked(filtered):
    where = [Condition("price", "gt", 5), Condition("is new", "eq", True), Condition("stock", "ne", 0)]
    table = make_table(range(60)).to_pylist()
    expected = {
        each["photo_id"] for each in table if (each["price"] or 0) > 5 and each["is new"] and each["stock"]
    }
    for gallery in filtered.values():
        assert {hit.photo_id for hit in gallery.search(unit_vectors(1), 100, where=where)[0]} == expected
        with pytest.raises(InputError, match=r"where\.0\.column: no column"):
            gallery.search(unit_vectors(1), 3, where=[Condition("row", "eq", 1)])
        with pytest.raises(InputError, match="category: no category"):
            gallery.search(unit_vectors(1), 3, 'chair" or row >= 0 or category == "')


def test_stores_answer_alike(filtered):
    lance, milvus = (filtered[store] for store in STORES)
    assert (lance.columns, lance.categories, lance.dim) == (milvus.columns, milvus.categories, milvus.dim)
    for k in (1, 10, 60):
        assert rankings(milvus, unit_vectors(5, seed=3), k) == rankings(lance, unit_vectors(5, seed=3), k)
    np.testing.assert_allclose(milvus.statistics.mean, lance.statistics.mean, atol=1e-6)
    assert milvus.statistics.duplicate_cosine == pytest.approx(lance.statistics.duplicate_cosine, abs=1e-6)
    first, second = (row(n)["photo_id"] for n in (4, 9))
    steering = Steering((Penalty(unit_vectors(1, seed=8)[0], 0.5),), (first,), (second,), group=True)
    steered = [
        [asdict(hit) for hit in search_steered(each, unit_vectors(1, seed=5)[0], 8, steering)]
        for each in (lance, milvus)
    ]
    for a, b in zip(*steered, strict=True):
        assert {**a, "score": pytest.approx(a["score"], abs=1e-5)} == b


def test_updates_append_replace_and_delete_without_touching_the_published_version(folder):
    before = make_table(range(30))
    publish_table(folder, before)
    writer = open_writer(folder, SCHEMA, DIGEST)
    write_origin(writer.dataset, "folder:/photos")
    unchanged = [each for n, each in enumerate(before.to_pylist()) if n not in (3, 8, 29)]
    stale = stale_row_ids(writer, unchanged)
    changed = make_table(range(3, 4), seed=9)
    for table in (changed, make_table(range(30, 34))):
        writer.append(table)
        writer.commit()
    writer.delete(stale)
    assert ids(folder) == set(before["photo_id"].to_pylist())
    assert ids(folder, None) == {row(n)["photo_id"] for n in range(34) if n not in (8, 29)}
    [vector] = [
        each["embedding"]
        for each in contents(folder, None).to_pylist()
        if each["photo_id"] == row(3)["photo_id"]
    ]
    assert vector == changed["embedding"].to_pylist()[0]
    version = writer.dataset.version
    publish(folder, prepare(folder, version, DIGEST, None), {"ok": 32})
    delete_intermediate_versions(folder, open_table(folder, "published").version)
    gallery = open_gallery(folder.uri, DIGEST)
    assert (gallery.count, gallery.origin) == (32, "folder:/photos")
    assert ids(folder) == {row(n)["photo_id"] for n in range(34) if n not in (8, 29)}
    assert len(gallery.search(unit_vectors(1), 100)[0]) == 32


def test_update_from_a_catalogue_appends_replaces_and_deletes(folder):
    before = [(f"{n:03}", 0) for n in range(60)]
    after = [*before[:50], *((name, 1) for name, _ in before[50:55]), ("new", 0)]
    for photos, counts in (
        (before, {"embedded": 60, "new": 60, "changed": 0, "removed": 0}),
        (after, {"embedded": 6, "new": 1, "changed": 5, "removed": 5}),
        (after, {"embedded": 0, "new": 0, "changed": 0, "removed": 0}),
    ):
        with artifact_lock(folder, "gallery") as lock:
            table = update_table(plan_update(ListedPhotos(photos), folder, SPACE, 1), folder, lock, embed, 0)
        assert table.counts.items() >= counts.items()
        rows = contents(folder, table.version).select(["photo_id", "content"]).to_pylist()
        assert sorted((each["photo_id"], int(each["content"])) for each in rows) == sorted(photos)
        open_store(folder).set_tag("published", table.version)


def stale_row_ids(writer: TableWriter, unchanged: list[dict[str, Any]]) -> list[int]:
    """The ids of the rows that are not among the unchanged photos, or are doubled."""
    existing = ExistingRows(np.concatenate([np.empty(0, ROW), *read_rows(writer.dataset, FIELDS.names)]))
    prints = np.array([row_print(each) for each in unchanged], HASH_TYPE)
    existing.retain(short_hashes(each["photo_id"] for each in unchanged), prints)
    return sorted(existing.rows["row_id"][~existing.is_retained].tolist())


def row_print(each: dict[str, Any]) -> bytes:
    metadata = [each[name] for name in FIELDS.names]
    return fingerprint(each["photo_id"], each["category"], each["content"], metadata)


def test_killed_job_keeps_its_commits_only_and_resumes(folder):
    writer = open_writer(folder, SCHEMA, DIGEST)
    writer.append(make_table(range(10)))
    writer.commit()
    writer.append(make_table(range(10, 20)))  # killed before the commit
    assert len(contents(folder, None)) == 10
    writer = open_writer(folder, SCHEMA, DIGEST)
    writer.append(make_table(range(10, 15)))
    writer.commit()
    assert contents(folder, None).equals(make_table(range(15)))
    with pytest.raises(InputError, match="embed_gallery"):
        open_gallery(folder.uri, DIGEST)


def test_another_schema_or_checkpoint_starts_with_no_rows(folder):
    publish_table(folder, make_table(range(10)))
    for columns, digest in ((schema(DIM), DIGEST), (SCHEMA, OTHER_DIGEST)):
        assert open_writer(folder, columns, digest).dataset.count_rows() == 0
    assert len(contents(folder)) == 10


def test_delete_photos(folder):
    publish_table(folder, make_table(range(20)))
    with pytest.raises(InputError, match="no photo 'nothing'"):
        delete_photos(folder, ["nothing"])
    table = delete_photos(folder, [row(n)["photo_id"] for n in (0, 5, 19)])
    assert len(contents(folder)) == 20
    publish(folder, prepare(folder, table.version, DIGEST, None), {"ok": 17})
    assert ids(folder) == {row(n)["photo_id"] for n in range(20) if n not in (0, 5, 19)}
    gallery = open_gallery(folder.uri, DIGEST)
    assert gallery.vector(row(5)["photo_id"]) is None
    assert len(gallery.search(unit_vectors(1), 50)[0]) == 17


def test_unpublished_rows_are_not_discarded(folder):
    publish_table(folder, make_table(range(10)))
    writer = open_writer(folder, SCHEMA, DIGEST)
    writer.append(make_table(range(10, 12)))
    writer.commit()
    for action in (lambda: delete_photos(folder, [row(1)["photo_id"]]), lambda: versions.optimize(folder)):
        with pytest.raises(InputError, match="rows that are not published"):
            action()


def test_gate_refuses_a_recall_below_the_limit(folder, monkeypatch):
    publish_table(folder, make_table(range(50)))
    version = open_store(folder).write(SCHEMA, make_table(range(400), seed=4).to_batches())
    monkeypatch.setattr(IndexPlan, "double_nprobes", lambda self: None)
    monkeypatch.setattr("stbir.gallery.gated_publish.MIN_RECALL", 1.01)
    with artifact_lock(folder, "gallery") as lock, pytest.raises(JobFailedError, match="not published"):
        index_and_publish(folder, version, DIGEST, IndexPlan(16, 1), {}, lock)
    assert len(contents(folder)) == 50


def test_gate_raises_nprobes_until_the_recall_is_reached(folder):
    version = open_store(folder).write(SCHEMA, make_table(range(3000), seed=4).to_batches())
    candidate = prepare(folder, version, DIGEST, IndexPlan(32, 1))
    assert candidate.recall >= 0.99
    assert candidate.metadata.nprobes > 1
    assert candidate.recalls.keys() > {"photo", "between", "drawn"}


def test_checkpoint_guard(folder):
    publish_table(folder, make_table(range(8)), digest=OTHER_DIGEST)
    with pytest.raises(InputError, match=f"{OTHER_DIGEST}.*{DIGEST}"):
        open_gallery(folder.uri, DIGEST)


def test_versions_tags_and_rollback(folder):
    old = publish_table(folder, make_table(range(8)))
    before = read_manifest(folder, "gallery")
    versions.tag_version(folder, "before_sale")
    new = publish_table(folder, make_table(range(20), seed=1), digest=OTHER_DIGEST)
    listed = versions.list_versions(folder)
    assert [(each.version, each.published, each.names[:1], each.rows) for each in listed] == [
        (new.version, True, [f"release-{new.version}"], 20),
        (old.version, False, ["before_sale"], 8),
    ]
    assert versions.rollback(folder, "before_sale") == before == read_manifest(folder, "gallery")
    assert (open_gallery(folder.uri, DIGEST).version, len(contents(folder))) == (old.version, 8)
    assert new.thumbnail(row(3)["photo_id"]) == row(3)["thumbnail"]  # readers keep their version
    versions.rollback(folder, str(new.version))
    assert len(contents(folder)) == 20
    with pytest.raises(InputError, match="no tag 'nothing'"):
        versions.rollback(folder, "nothing")


def test_prune_keeps_the_published_and_the_tagged(folder):
    made = []
    for n in range(1, 5):
        made.append(publish_table(folder, make_table(range(n))).version)
        if n == 1:
            versions.tag_version(folder, "first")
    assert versions.prune(folder, keep=1, older_than=timedelta(0))["releases_removed"] == 2
    assert [each.version for each in versions.list_versions(folder)] == [made[3], made[0]]
    assert len(contents(folder, "first")) == 1
    with pytest.raises(InputError, match="cannot be opened"):
        open_table(folder, made[1])


def test_optimize_publishes_the_same_rows(folder):
    publish_table(folder, make_table(range(300)), IndexPlan(4, 4))
    for _ in range(2):  # the first is not published
        table = versions.optimize(folder, rebuild=True)
    publish(folder, prepare(folder, table.version, DIGEST, IndexPlan(4, 4)), {"ok": 300})
    assert contents(folder).equals(make_table(range(300)))


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_export_and_import_are_exact(folder, tmp_path, format):
    table, files = make_table(range(50)), Folder(str(tmp_path / "files"))
    publish_table(folder, table)
    exported = export_import.export_table(open_table(folder), DIGEST, files, format)
    version = export_import.import_table(files, folder, exported=exported)
    assert contents(folder, version).select(table.column_names).equals(table)


def test_import_of_invalid_rows_leaves_the_gallery_as_it_is(folder, tmp_path):
    files = Folder(str(tmp_path / "files"))
    publish_table(folder, make_table(range(10)))
    export_import.export_table(open_table(folder), DIGEST, files, "parquet")

    def refuse(photo_ids: Any) -> None:
        raise InputError(f"{len(photo_ids)} refused")

    with pytest.raises(InputError, match="10 refused"):
        export_import.import_table(files, folder, check=refuse)
    assert len(contents(folder)) == len(contents(folder, None)) == 10


@pytest.mark.parametrize(
    ("source", "target"), [("lance", "milvus"), ("milvus", "lance"), ("milvus", "milvus")]
)
def test_copy_is_exact(source, target, tmp_path, request):
    here, there = (new_folder(store, tmp_path, request) for store in (source, target))
    publish_table(here, make_table(range(120)))
    publish_table(here, make_table(range(1203), seed=2))
    write_origin(open_table(here), "folder:/photos")
    IdentityStore(here).append([(b"f" * 24, b"i" * 24)] * 3000)
    version = export_import.copy_table(open_table(here), here, there)
    publish(there, prepare(there, version, DIGEST, IndexPlan(4, 4)), {"ok": 1203})
    assert contents(there).equals(contents(here))
    assert read_manifest(there, "gallery").digest == read_manifest(here, "gallery").digest
    assert read_origin(open_table(there)) == "folder:/photos"
    copied, original = (np.concatenate([*IdentityStore(each).read()]) for each in (there, here))
    assert len(original) == 3000
    assert (copied == original).all()


def test_one_writer_at_a_time(folder):
    with artifact_lock(folder, "gallery") as lock:
        lock.check()
        with pytest.raises(InputError, match="locked by"), artifact_lock(folder, "gallery"):
            pass
        lock.check()
    with artifact_lock(folder, "gallery") as second:
        assert second.number >= lock.number
        with pytest.raises(InputError, match=r"released|taken over"):
            lock.check()


def test_concurrent_searches_during_a_publish(folder):
    table = make_table(range(200))
    gallery = publish_table(folder, table)
    expected = brute_force(table, unit_vectors(6, seed=1), 5, lambda _: True)
    wrong: list[Any] = []

    def search() -> None:
        for _ in range(5):
            found = rankings(gallery, unit_vectors(6, seed=1), 5)
            wrong.extend(each for each in found if each not in expected)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    publish_table(folder, make_table(range(100), seed=3))
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(contents(folder)) == 100


def test_gallery_of_one_photo_and_of_none(folder):
    assert len(publish_table(folder, make_table(range(1))).search(unit_vectors(1, seed=1), 10)[0]) == 1
    empty = publish_table(folder, SCHEMA.empty_table())
    assert (empty.count, empty.search(unit_vectors(1), 10), empty.categories) == (0, [[]], [])


def test_manifest_names_what_was_published(folder):
    gallery = publish_table(folder, make_table(range(30)), IndexPlan(2, 2))
    manifest = read_manifest(folder, "gallery")
    assert manifest.details["version"] == gallery.version
    assert manifest.details["dim"] == DIM
    assert manifest.details["index"]["partitions"] == 2
    assert json.loads(folder.read(f"versions/{gallery.version}.json"))["digest"] == manifest.digest
    assert published_version(folder).version == gallery.version
