"""The life of a gallery on disk: each step by what a reader finds afterwards."""

import os
from datetime import timedelta

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stbir.config.choices import EXPORT_FORMATS
from stbir.errors import InputError
from stbir.gallery import export_import, versions
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import Facts, Gallery, open_gallery, open_table, table_uri, write_facts
from stbir.gallery.index import IndexPlan, build, build_scalar, refuse_too_large, vector_index
from stbir.gallery.local_cache import Cache
from stbir.gallery.publish import prepare, publish
from stbir.gallery.rows import Rows, VectorsInTable, vectors_held
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.gallery.test_gallery import DIM, OURS, made, rows_of, slow_search, unit, write

COUNTS = {"in": 1, "ok": 1, "quarantined": 0}
PLAN = IndexPlan(8, 8)


def published(folder: Folder, plan: IndexPlan | None) -> Gallery:
    candidate = prepare(folder, open_table(folder).version, OURS, plan)
    publish(folder, candidate, COUNTS)
    return open_gallery(folder.uri, OURS)


def names(gallery: Gallery, query: np.ndarray, k: int = 7) -> list[str]:
    return [hit.photo_id for hit in gallery.search(query, k)[0]]


def wanted(photos: np.ndarray, query: np.ndarray, k: int = 7) -> list[str]:
    return [photo_id for photo_id, _ in slow_search(photos, query[0], k, None)]


def test_what_is_added_is_found_at_once_and_folded_in(tmp_path):
    folder, photos, more = Folder(str(tmp_path)), unit(800), unit(200, seed=2)
    made(folder, photos, PLAN)
    lance.write_dataset(rows_of(more, start=800), table_uri(folder), mode="append")
    grown, both = published(folder, PLAN), np.concatenate([photos, more])
    assert names(grown, more[:1]) == wanted(both, more[:1])
    stats = open_table(folder, grown.version).stats.index_stats("embedding_idx")
    assert stats["num_unindexed_rows"] == 200
    folded = versions.fold(folder)
    assert folded.stats.index_stats("embedding_idx")["num_unindexed_rows"] == 0
    gallery = published(folder, PLAN)
    assert names(gallery, more[:1]) == wanted(both, more[:1])
    assert gallery.thumbnail("photo-900") == b"jpeg 900"


def test_folding_drops_what_was_deleted_and_rebuilds_what_was_outgrown(tmp_path):
    folder, photos = Folder(str(tmp_path)), unit(3000)
    made(folder, photos, IndexPlan(2, 2))
    open_table(folder).delete("photo_id = 'photo-7'")
    gallery = published(folder, PLAN)
    assert "photo-7" not in names(gallery, photos[7:8], 50)
    assert vector_index(versions.fold(folder)) is None  # 3000 photos ask for 46 parts, there were 2


def test_rows_of_a_job_that_has_not_ended_are_not_folded_away(tmp_path):
    folder = Folder(str(tmp_path))
    made(folder, unit(300), PLAN)
    versions.fold(folder, rebuild=True)
    lance.write_dataset(rows_of(unit(20, seed=2), start=300), table_uri(folder), mode="append")
    open_table(folder).delete("photo_id = 'photo-7'")
    with pytest.raises(InputError, match="written and not published"):
        versions.fold(folder)
    assert open_table(folder).count_rows() == 319


def test_a_fold_that_was_not_published_is_no_obstacle_to_the_next(tmp_path):
    folder, photos, more = Folder(str(tmp_path)), unit(400), unit(100, seed=2)
    made(folder, photos, PLAN)
    lance.write_dataset(rows_of(more, start=400), table_uri(folder), mode="append")
    open_table(folder).delete("photo_id = 'photo-7'")
    before = published(folder, PLAN)
    for _ in range(2):
        folded = versions.fold(folder, rebuild=True)
        assert (vector_index(folded), folded.count_rows()) == (None, 499)
        build(folded, plan := IndexPlan(2, 2))
        write_facts(folded, Facts.of(OURS, plan))
    folded = versions.fold(folder)
    assert folded.stats.index_stats("embedding_idx")["num_unindexed_rows"] == 0
    assert names(published(folder, PLAN), more[:1]) == names(before, more[:1])


def test_rollback_by_name_takes_the_manifest_along(tmp_path):
    folder = Folder(str(tmp_path))
    old = made(folder, unit(8))
    before = read_manifest(folder, "gallery")
    versions.name(folder, "before_the_sale")
    new = made(folder, unit(20, seed=1))
    assert versions.rollback(folder, "before_the_sale") == before == read_manifest(folder, "gallery")
    assert open_gallery(folder.uri, OURS).version == old.version
    assert [(each.version, each.published, each.rows) for each in versions.versions(folder)] == [
        (new.version, False, 20),
        (old.version, True, 8),
    ]
    versions.rollback(folder, str(new.version))
    assert open_gallery(folder.uri, OURS).count == 20


@pytest.mark.parametrize("to", ["nobody", "999"])
def test_there_is_no_way_back_to_what_was_never_published(tmp_path, to):
    made(Folder(str(tmp_path)), unit(8))
    with pytest.raises(InputError, match="version"):
        versions.rollback(Folder(str(tmp_path)), to)


@pytest.mark.parametrize("name", ["published", "release-1", "12", "a b", ""])
def test_a_name_is_a_name(tmp_path, name):
    made(Folder(str(tmp_path)), unit(8))
    with pytest.raises(InputError, match="name: "):
        versions.name(Folder(str(tmp_path)), name)


def test_cleaning_keeps_what_is_named_new_or_in_force(tmp_path):
    folder = Folder(str(tmp_path))
    first = made(folder, unit(8))
    versions.name(folder, "kept")
    second, third, last = (made(folder, unit(8, seed=n)) for n in (1, 2, 3))
    versions.clean(folder, keep=2, older_than=timedelta(0))
    assert {each.version for each in versions.versions(folder)} == {
        first.version,
        third.version,
        last.version,
    }
    assert open_table(folder, "kept").count_rows() == 8
    assert not folder.exists(f"versions/{second.version}.json")
    with pytest.raises(InputError):
        open_gallery(folder.uri, OURS, second.version)


def test_cleaning_leaves_what_is_young(tmp_path):
    folder = Folder(str(tmp_path))
    for n in range(3):
        made(folder, unit(8, seed=n))
    versions.clean(folder, keep=1, older_than=timedelta(days=1))
    assert len(versions.versions(folder)) == 3


def test_conditions_reach_both_kinds_of_search(tmp_path):
    photos, query = unit(600), unit(1, seed=1)
    for at, plan in (("exact", None), ("index", PLAN)):
        folder = Folder(str(tmp_path / at))
        table = rows_of(photos).append_column("number", pa.array(range(600)))
        lance.write_dataset(table, table_uri(folder))
        gallery = published(folder, plan)
        assert gallery.columns["number"] == "int64"
        hits = gallery.search(query, 5, "chair", [Condition("number", "lt", 100)])[0]
        ours = slow_search(photos[:100], query[0], 5, "chair")
        assert [hit.photo_id for hit in hits] == [photo_id for photo_id, _ in ours]
        assert gallery.search(query, 5, where=[Condition("number", "gt", 600)]) == [[]]
        with pytest.raises(InputError, match=r"where\.0\.column"):
            gallery.search(query, 5, where=[Condition("nothing", "eq", 1)])


def test_a_wide_filter_goes_through_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr("stbir.gallery.rows.FEW", 10)
    photos, query = unit(600), unit(1, seed=1)
    gallery = made(Folder(str(tmp_path)), photos, PLAN)
    hits = gallery.search(query, 7, "chair")[0]
    assert [hit.photo_id for hit in hits] == [name for name, _ in slow_search(photos, query[0], 7, "chair")]


def test_the_vectors_of_a_row_are_its_own_after_deletions(tmp_path):
    folder, photos = Folder(str(tmp_path)), unit(100)
    write(folder, photos)
    dataset = open_table(folder)
    dataset.delete("photo_id IN ('photo-3', 'photo-50')")
    rows, held = Rows(dataset), vectors_held(dataset)
    place = rows.place("photo-51")
    assert np.array_equal(held[place], photos[51])
    assert np.array_equal(VectorsInTable(dataset)[np.array([place])][0], photos[51])


def test_a_remote_gallery_is_searched_from_this_machines_disk(s3, tmp_path, monkeypatch):
    """The index and the full vectors are gone from the bucket, and searches go on."""
    monkeypatch.setattr("stbir.gallery.gallery._HELD_BYTES", 0)
    folder, photos, query = Folder(f"{s3}/search-cache"), unit(600), unit(1, seed=1)
    made(folder, photos, PLAN)
    cache = Cache(tmp_path / "cache")
    open_gallery(folder.uri, OURS, cache=cache)
    for name in folder.names("photos.lance/_indices/**"):
        folder.remove(name)
    gallery = open_gallery(folder.uri, OURS, cache=cache)
    assert names(gallery, query) == wanted(photos, query)
    assert [hit.category for hit in gallery.search(query, 3, "chair")[0]] == ["chair"] * 3
    kept = {os.path.relpath(os.path.join(at, f), cache.path) for at, _, fs in os.walk(cache.path) for f in fs}
    assert not [file for file in kept if "/data/" in file]
    assert sum(file.endswith("vectors.f32") for file in kept) == 1


def test_a_filter_whose_index_is_the_older_one_finds_its_files_here(s3, tmp_path, monkeypatch):
    monkeypatch.setattr("stbir.gallery.gallery._HELD_BYTES", 0)
    folder, photos, more, query = Folder(f"{s3}/older-filter"), unit(300), unit(100, seed=2), unit(1, seed=1)
    write(folder, photos)
    build(open_table(folder), PLAN)
    build_scalar(open_table(folder))
    lance.write_dataset(rows_of(more, start=300), table_uri(folder), mode="append")
    open_table(folder).optimize.optimize_indices(index_names=["embedding_idx"])
    gallery = Gallery(open_table(folder), folder, Cache(tmp_path), Facts.of(OURS, PLAN))
    chairs = slow_search(np.concatenate([photos, more]), query[0], 100, "chair")
    assert len(chairs) == 100
    assert [hit.photo_id for hit in gallery.search(query, 100, "chair")[0]] == [name for name, _ in chairs]


def test_a_cache_has_its_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr("stbir.gallery.gallery._HELD_BYTES", 0)
    photos, query = unit(600), unit(1, seed=1)
    made(Folder(str(tmp_path / "g")), photos, PLAN)
    gallery = open_gallery(str(tmp_path / "g"), OURS, cache=Cache(tmp_path / "cache", most_bytes=100))
    assert names(gallery, query) == wanted(photos, query)
    assert not (tmp_path / "cache").exists()


def test_an_index_too_large_to_build_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"index: building IVF_SQ over 1000000000 x 512 takes about .* GiB"):
        refuse_too_large(IndexPlan(31622, 16), 10**9, DIM * 32, memory=2**34)
    refuse_too_large(IndexPlan(1000, 16), 10**6, 512, memory=2**32)


@pytest.mark.parametrize("form", EXPORT_FORMATS)
@pytest.mark.parametrize("remote", [False, True])
def test_what_is_exported_comes_back_the_same(tmp_path, request, form, remote):
    base = f"{request.getfixturevalue('s3')}/transfer-{form}" if remote else str(tmp_path)
    folder, out, again = (Folder(f"{base}/{name}") for name in ("gallery", "out", "again"))
    made(folder, unit(300))
    manifest = export_import.export(open_table(folder), OURS, out, form)
    assert (manifest.made_from, manifest.counts) == (OURS, {"ok": 300})
    version = export_import.load(out, again)
    assert (
        publish(again, prepare(again, version, OURS, None), COUNTS).digest
        == read_manifest(folder, "gallery").digest
    )
    assert open_gallery(again.uri, OURS).thumbnail("photo-17") == b"jpeg 17"


def test_an_export_takes_the_place_of_another_of_any_form(tmp_path):
    first, second, out = (Folder(str(tmp_path / name)) for name in ("first", "second", "out"))
    made(first, unit(30))
    made(second, unit(20))
    for form in ("parquet", "npy", "parquet"):
        export_import.export(open_table(first if form == "npy" else second), OURS, out, form)
    again = Folder(str(tmp_path / "again"))
    assert open_table(again, export_import.load(out, again)).count_rows() == 20
    assert out.names() == ["manifest.json", "part-00000.parquet"]


def test_an_exported_array_is_what_numpy_reads(tmp_path):
    folder, photos = Folder(str(tmp_path / "g")), unit(30)
    made(folder, photos)
    export_import.export(open_table(folder), OURS, Folder(str(tmp_path / "out")), "npy")
    assert np.array_equal(np.load(tmp_path / "out" / "vectors.npy"), photos)
    assert pq.read_table(tmp_path / "out" / "rows.parquet")["photo_id"].to_pylist()[17] == "photo-17"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns(["category"]), "column category is missing"),
        (lambda t: pa.concat_tables([t, t]), "photo_id: 'photo-0' comes twice"),
        (lambda t: t.set_column(1, "category", pa.nulls(len(t), pa.string())), "category: 30 rows have none"),
        (
            lambda t: t.set_column(2, "embedding", pa.array([[0.0] * DIM] * len(t))),
            "'photo-0' has no direction",
        ),
        (lambda t: t.set_column(2, "embedding", pa.array([[1.0]] * 29 + [[1.0, 2.0]])), "as many numbers"),
    ],
)
def test_what_cannot_be_a_gallery_is_not_loaded(tmp_path, change, says):
    (tmp_path / "in").mkdir()
    pq.write_table(change(rows_of(unit(30)).replace_schema_metadata(None)), tmp_path / "in" / "a.parquet")
    with pytest.raises(InputError, match=says):
        export_import.load(Folder(str(tmp_path / "in")), Folder(str(tmp_path / "g")))
