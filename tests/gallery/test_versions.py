"""Versions of a gallery on disk: the results of each operation as a reader sees them."""

import json
import os
from dataclasses import replace
from datetime import timedelta

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stbir.config.choices import EXPORT_FORMATS, INDEX_KINDS
from stbir.errors import InputError
from stbir.gallery import export_import, index, versions
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import Gallery, open_gallery, open_table
from stbir.gallery.index import IndexPlan, build_index, vector_index_name
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.metadata import Metadata, write_metadata
from stbir.gallery.publish import Candidate, prepare, publish
from stbir.gallery.recall import MIN_RECALL_K
from stbir.gallery.rows import Rows, TableVectors, load_vectors
from stbir.gallery.table import table_uri
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.gallery.test_gallery import (
    DIGEST,
    brute_force_search,
    make_table,
    publish_gallery,
    unit_vectors,
    write_table,
)

COUNTS = {"in": 1, "ok": 1, "quarantined": 0}
PLAN = IndexPlan(8, 8)


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture
def nothing_in_memory(monkeypatch) -> None:
    monkeypatch.setattr("stbir.gallery.local_cache._MAX_IN_MEMORY_BYTES", 0)


def publish_latest(folder: Folder, plan: IndexPlan | None) -> Gallery:
    candidate = prepare(folder, open_table(folder).version, DIGEST, plan)
    publish(folder, candidate, COUNTS)
    return open_gallery(folder.uri, DIGEST)


def append(folder: Folder, vectors: np.ndarray, start: int) -> None:
    lance.write_dataset(make_table(vectors, start=start), table_uri(folder), mode="append")


def hit_ids(gallery: Gallery, query: np.ndarray, k: int = 7, category: str | None = None) -> list[str]:
    return [hit.photo_id for hit in gallery.search(query, k, category)[0]]


def expected_ids(photos: np.ndarray, query: np.ndarray, k: int = 7, category: str | None = None) -> list[str]:
    return [photo_id for photo_id, _ in brute_force_search(photos, query[0], k, category)]


@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_publishing_adds_new_rows_to_the_index(folder, kind):
    plan = IndexPlan(4, 4, kind)
    photos, more = unit_vectors(800), unit_vectors(200, seed=2)
    publish_gallery(folder, photos, plan)
    append(folder, more, start=800)
    assert index.count_unindexed_rows(open_table(folder)) == 200
    gallery, both = publish_latest(folder, plan), np.concatenate([photos, more])
    # Not all hits: the order of an index with lossy codes is approximate.
    assert hit_ids(gallery, more[:1])[0] == expected_ids(both, more[:1])[0]
    assert index.count_unindexed_rows(open_table(folder, gallery.version)) == 0
    assert read_manifest(folder, "gallery").details["unindexed_rows"] == 0
    assert gallery.thumbnail("photo-900") == b"jpeg 900"


def test_optimize_drops_an_outgrown_index(folder):
    photos = unit_vectors(3000)
    publish_gallery(folder, photos, IndexPlan(2, 2))
    open_table(folder).delete("photo_id = 'photo-7'")
    gallery = publish_latest(folder, PLAN)
    assert "photo-7" not in hit_ids(gallery, photos[7:8], 50)
    assert vector_index_name(versions.optimize(folder)) is None  # 3000 photos call for 46 partitions, not 2


def test_optimize_refuses_to_discard_unpublished_rows(folder):
    publish_gallery(folder, unit_vectors(300), PLAN)
    versions.optimize(folder, rebuild=True)
    append(folder, unit_vectors(20, seed=2), start=300)
    open_table(folder).delete("photo_id = 'photo-7'")
    with pytest.raises(InputError, match="has rows that are not published"):
        versions.optimize(folder)
    assert open_table(folder).count_rows() == 319


def test_unpublished_optimize_does_not_block_the_next(folder):
    photos, more = unit_vectors(400), unit_vectors(100, seed=2)
    publish_gallery(folder, photos, PLAN)
    append(folder, more, start=400)
    open_table(folder).delete("photo_id = 'photo-7'")
    before = publish_latest(folder, PLAN)
    for _ in range(2):
        optimized = versions.optimize(folder, rebuild=True)
        assert (vector_index_name(optimized), optimized.count_rows()) == (None, 499)
        build_index(optimized, plan := IndexPlan(2, 2))
        write_metadata(optimized, Metadata.of(DIGEST, plan))
    assert index.count_unindexed_rows(versions.optimize(folder)) == 0
    assert hit_ids(publish_latest(folder, PLAN), more[:1]) == hit_ids(before, more[:1])


def test_rollback_restores_version_and_manifest(folder):
    old = publish_gallery(folder, unit_vectors(8))
    before = read_manifest(folder, "gallery")
    versions.tag_version(folder, "before_the_sale")
    new = publish_gallery(folder, unit_vectors(20, seed=1))
    assert versions.rollback(folder, "before_the_sale") == before == read_manifest(folder, "gallery")
    assert open_gallery(folder.uri, DIGEST).version == old.version
    listed = [(each.version, each.published, each.rows) for each in versions.list_versions(folder)]
    assert listed == [(new.version, False, 20), (old.version, True, 8)]
    versions.rollback(folder, str(new.version))
    assert open_gallery(folder.uri, DIGEST).count == 20


@pytest.mark.parametrize("to", ["unknown", "999"])
def test_rollback_to_an_unpublished_version_is_rejected(folder, to):
    publish_gallery(folder, unit_vectors(8))
    with pytest.raises(InputError, match="version"):
        versions.rollback(folder, to)


@pytest.mark.parametrize("tag", ["published", "release-1", "12", "a b", ""])
def test_invalid_tag_is_rejected(folder, tag):
    publish_gallery(folder, unit_vectors(8))
    with pytest.raises(InputError, match="tag: "):
        versions.tag_version(folder, tag)


def test_prune_keeps_tagged_new_and_current_versions(folder):
    tagged = publish_gallery(folder, unit_vectors(8))
    versions.tag_version(folder, "tagged")
    pruned, newer, current = (publish_gallery(folder, unit_vectors(8, seed=n)) for n in (1, 2, 3))
    versions.prune(folder, keep=2, older_than=timedelta(0))
    listed = [each.version for each in versions.list_versions(folder)]
    assert listed == [current.version, newer.version, tagged.version]
    assert open_table(folder, "tagged").count_rows() == 8
    assert not folder.exists(f"versions/{pruned.version}.json")
    with pytest.raises(InputError):
        open_gallery(folder.uri, DIGEST, pruned.version)


def test_prune_keeps_versions_below_the_age_limit(folder):
    for n in range(3):
        publish_gallery(folder, unit_vectors(8, seed=n))
    versions.prune(folder, keep=1, older_than=timedelta(days=1))
    assert len(versions.list_versions(folder)) == 3


@pytest.mark.parametrize("plan", [None, PLAN], ids=["exact", "index"])
def test_conditions_filter_both_kinds_of_search(folder, plan):
    photos, query = unit_vectors(600), unit_vectors(1, seed=1)
    table = make_table(photos).append_column("number", pa.array(range(600)))
    lance.write_dataset(table, table_uri(folder))
    gallery = publish_latest(folder, plan)
    assert gallery.columns["number"] == "int64"
    hits = gallery.search(query, 5, "chair", [Condition("number", "lt", 100)])[0]
    assert [hit.photo_id for hit in hits] == expected_ids(photos[:100], query, 5, "chair")
    assert gallery.search(query, 5, where=[Condition("number", "gt", 600)]) == [[]]
    with pytest.raises(InputError, match=r"where\.0\.column"):
        gallery.search(query, 5, where=[Condition("unknown", "eq", 1)])


def test_filter_with_many_matches_uses_the_index(folder, monkeypatch):
    monkeypatch.setattr("stbir.gallery.rows.EXACT_SCORING_LIMIT", 10)
    photos, query = unit_vectors(600), unit_vectors(1, seed=1)
    gallery = publish_gallery(folder, photos, PLAN)
    assert hit_ids(gallery, query, 7, "chair") == expected_ids(photos, query, 7, "chair")


def test_row_indices_are_correct_after_deletions(folder):
    photos = unit_vectors(100)
    write_table(folder, photos)
    dataset = open_table(folder)
    dataset.delete("photo_id IN ('photo-3', 'photo-50')")
    row = Rows(dataset).index_of("photo-51")
    assert np.array_equal(load_vectors(dataset)[row], photos[51])
    assert np.array_equal(TableVectors(dataset)[np.array([row])][0], photos[51])


def test_cached_gallery_is_searched_after_its_remote_index_is_deleted(s3, tmp_path, nothing_in_memory):
    folder, photos, query = Folder(f"{s3}/search-cache"), unit_vectors(600), unit_vectors(1, seed=1)
    publish_gallery(folder, photos, PLAN)
    cache = CacheConfig(tmp_path / "cache")
    open_gallery(folder.uri, DIGEST, cache=cache)
    for name in folder.list_files("photos.lance/_indices/**"):
        folder.remove(name)
    gallery = open_gallery(folder.uri, DIGEST, cache=cache)
    assert hit_ids(gallery, query) == expected_ids(photos, query)
    assert [hit.category for hit in gallery.search(query, 3, "chair")[0]] == ["chair"] * 3
    files = [os.path.join(path, name) for path, _, names in os.walk(cache.path) for name in names]
    assert not [file for file in files if "/data/" in file]
    assert sum(file.endswith("vectors.f32") for file in files) == 1


def test_cache_contains_fragments_that_a_scalar_index_does_not_cover(s3, tmp_path, nothing_in_memory):
    folder, query = Folder(f"{s3}/older-filter"), unit_vectors(1, seed=1)
    photos, more = unit_vectors(300), unit_vectors(100, seed=2)
    write_table(folder, photos)
    build_index(open_table(folder), PLAN)
    index.build_scalar_indexes(open_table(folder))
    append(folder, more, start=300)
    open_table(folder).optimize.optimize_indices(index_names=["embedding_idx"])
    gallery = Gallery(open_table(folder), folder, CacheConfig(tmp_path), Metadata.of(DIGEST, PLAN))
    chairs = expected_ids(np.concatenate([photos, more]), query, 100, "chair")
    assert len(chairs) == 100
    assert hit_ids(gallery, query, 100, "chair") == chairs


def test_vectors_above_the_cache_limit_are_read_from_the_table(tmp_path, nothing_in_memory):
    photos, query = unit_vectors(600), unit_vectors(1, seed=1)
    publish_gallery(Folder(str(tmp_path / "g")), photos, PLAN)
    cache = CacheConfig(tmp_path / "cache", max_bytes=100)
    gallery = open_gallery(str(tmp_path / "g"), DIGEST, cache=cache)
    assert hit_ids(gallery, query) == expected_ids(photos, query)
    assert not (tmp_path / "cache").exists()


def test_index_build_above_the_memory_limit_is_rejected():
    with pytest.raises(InputError, match=r"index: building IVF_SQ over 1000000000 x 512 takes about .* GiB"):
        index.check_build_memory(IndexPlan(31622, 16), 10**9, 512, memory_bytes=2**34)
    index.check_build_memory(IndexPlan(1000, 16), 10**6, 512, memory_bytes=2**32)


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@pytest.mark.parametrize("is_remote", [False, True])
def test_export_and_import_round_trip(tmp_path, request, format, is_remote):
    base = f"{request.getfixturevalue('s3')}/transfer-{format}" if is_remote else str(tmp_path)
    folder, out, copy = (Folder(f"{base}/{name}") for name in ("gallery", "out", "copy"))
    publish_gallery(folder, unit_vectors(300))
    manifest = export_import.export_table(open_table(folder), DIGEST, out, format)
    assert (manifest.made_from, manifest.counts) == (DIGEST, {"ok": 300})
    candidate = prepare(copy, export_import.import_table(out, copy), DIGEST, None)
    assert publish(copy, candidate, COUNTS).digest == read_manifest(folder, "gallery").digest
    assert open_gallery(copy.uri, DIGEST).thumbnail("photo-17") == b"jpeg 17"


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_an_import_proves_that_vectors_belong_to_their_ids_and_checkpoint(tmp_path, format):
    folder, out, copy = (Folder(str(tmp_path / name)) for name in ("gallery", "out", "copy"))
    publish_gallery(folder, unit_vectors(300))
    exported = export_import.export_table(open_table(folder), DIGEST, out, format)
    export_import.import_table(out, copy, exported=exported)
    without = replace(exported, details={"form": format})  # of an earlier version of stbir
    other_checkpoint = replace(exported, made_from="sha256:other")
    with pytest.raises(InputError, match="out: photo ids, vectors or checkpoint are not those that were"):
        export_import.import_table(out, copy, exported=other_checkpoint)
    [rows] = out.list_files("*.parquet")
    table = pq.read_table(tmp_path / "out" / rows)
    ids = table["photo_id"].to_pylist()
    ids[3], ids[200] = ids[200], ids[3]
    swapped = table.set_column(table.column_names.index("photo_id"), "photo_id", [ids])
    pq.write_table(swapped, tmp_path / "out" / rows)
    version = open_table(copy).version
    with pytest.raises(InputError, match=r"copy all files again, or remove manifest\.json"):
        export_import.import_table(out, copy, exported=exported)
    assert open_table(copy).version == version
    export_import.import_table(out, copy, exported=without)


def test_the_digest_of_an_export_does_not_depend_on_the_layout_of_its_file(tmp_path):
    folder, out, copy = (Folder(str(tmp_path / name)) for name in ("gallery", "out", "copy"))
    publish_gallery(folder, unit_vectors(300))
    exported = export_import.export_table(open_table(folder), DIGEST, out, "parquet")
    path = tmp_path / "out" / "part-00000.parquet"
    table = pq.read_table(path)
    for number in range(3):
        part = table.slice(number * 100, 100)
        pq.write_table(part, path.with_name(f"part-{number:05d}.parquet"), row_group_size=7)
    export_import.import_table(out, copy, exported=exported)


def test_export_replaces_an_earlier_one_in_any_format(tmp_path):
    large, small, out, copy = (Folder(str(tmp_path / name)) for name in ("large", "small", "out", "copy"))
    publish_gallery(large, unit_vectors(30))
    publish_gallery(small, unit_vectors(20))
    for format in ("parquet", "npy", "parquet"):
        export_import.export_table(open_table(large if format == "npy" else small), DIGEST, out, format)
    assert open_table(copy, export_import.import_table(out, copy)).count_rows() == 20
    assert out.list_files() == ["manifest.json", "part-00000.parquet"]


def test_an_export_that_lost_its_lock_is_not_published(tmp_path):
    """The lock is lost while the rows are written."""
    folder, out = Folder(str(tmp_path / "g")), Folder(str(tmp_path / "out"))
    publish_gallery(folder, unit_vectors(30))

    def check() -> None:
        if out.list_files():
            raise InputError("another writer has taken over")

    with pytest.raises(InputError, match="taken over"):
        export_import.export_table(open_table(folder), DIGEST, out, "parquet", check)
    assert out.list_files() == ["part-00000.parquet"]


def test_numpy_reads_an_exported_array(tmp_path):
    folder, photos = Folder(str(tmp_path / "g")), unit_vectors(30)
    publish_gallery(folder, photos)
    export_import.export_table(open_table(folder), DIGEST, Folder(str(tmp_path / "out")), "npy")
    assert np.array_equal(np.load(tmp_path / "out" / "vectors.npy"), photos)
    assert pq.read_table(tmp_path / "out" / "rows.parquet")["photo_id"].to_pylist()[17] == "photo-17"


def test_a_gallery_of_a_later_version_opens(folder):
    """Its table, its manifest and the manifests of its versions have fields that this version lacks."""
    publish_gallery(folder, unit_vectors(20))
    dataset = open_table(folder, "published")
    future = {**json.loads(dataset.schema.metadata[b"stbir.gallery"]), "dtype": "float16"}
    dataset.update_schema_metadata({"stbir.gallery": json.dumps(future)})
    recalls = {"photo": {f"@{MIN_RECALL_K}": 1.0}}
    publish(folder, Candidate(dataset.version, Metadata(DIGEST), recalls, {}, 1.0, 0, (0.0, 1.0)), COUNTS)
    for name in folder.list_files("**"):
        if name == "manifest.json" or name.startswith("versions/"):
            folder.write(name, json.dumps({**json.loads(folder.read(name)), "signature": "x"}).encode())
    assert open_gallery(folder.uri, DIGEST).count == 20
    assert [each.published for each in versions.list_versions(folder)] == [True, False]
    assert versions.rollback(folder, str(dataset.version)).digest == read_manifest(folder, "gallery").digest


def test_a_damaged_manifest_of_a_version_is_named(folder):
    version = publish_gallery(folder, unit_vectors(20)).version
    folder.write(f"versions/{version}.json", b"{")
    with pytest.raises(InputError, match=rf"versions/{version}\.json: not a manifest .*roll back to another"):
        versions.list_versions(folder)
