"""The subcommands of `ray_jobs/gallery.py`, and the distributed build of an index."""

import lance
import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.cluster import placement
from ray_jobs.embedding import index_build
from ray_jobs.embedding.index_build import build_distributed, prepare_on_cluster, score_on_cluster
from ray_jobs.gallery import RETIRED, main, parser
from stbir.errors import InputError, JobFailedError
from stbir.gallery import versions
from stbir.gallery.gallery import Gallery, open_gallery, open_table
from stbir.gallery.index import IndexPlan
from stbir.gallery.metadata import Metadata
from stbir.gallery.publish import prepare
from stbir.gallery.recall import exact_scores
from stbir.gallery.table import PUBLISHED, table_uri
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest, write_manifest
from tests.gallery.test_gallery import (
    DIGEST,
    OTHER_DIGEST,
    brute_force_search,
    make_table,
    publish_gallery,
    unit_vectors,
)


def gallery(*arguments: object) -> dict[str, object]:
    return main(parser().parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(str(tmp_path / "gallery"))


def test_all_subcommands_in_sequence(ray_cluster, folder, tmp_path):
    uri, threshold = folder.uri, ("--index-threshold", 100)
    publish_gallery(folder, unit_vectors(700))
    assert gallery("tag", uri, "initial")["version"] == open_gallery(uri, DIGEST).version
    optimized = gallery("optimize", uri, "--index", "IVF_SQ", *threshold, "--columns", "category")
    assert optimized["index"]["kind"] == "IVF_SQ"
    filters = {"filter 50.0%", "filter 1.0%", "filter 0.1%"}
    assert set(optimized["recalls"]) == {"photo", "between", "drawn", *filters}
    np.save(tmp_path / "q.npy", unit_vectors(20, seed=5))
    rebuilt = gallery("optimize", uri, "--rebuild", *threshold, "--queries", tmp_path / "q.npy")
    assert set(rebuilt["recalls"]) == {"photo", "between", "drawn", "given", *filters}
    assert [each["published"] for each in gallery("versions", uri)["versions"]] == [True, False, False]
    assert gallery("rollback", uri, "initial")["index"] == {"kind": "exact"}
    assert gallery("prune", uri, "--keep", 1, "--older-than", 0)["releases_removed"] == 1
    gallery("export", uri, tmp_path / "out", "--format", "npy")
    imported = gallery("import", tmp_path / "copy", tmp_path / "out")
    assert (imported["ok"], imported["checkpoint"]) == (700, DIGEST)
    query = unit_vectors(1, seed=9)
    hits = open_gallery(str(tmp_path / "copy"), DIGEST).search(query, 5)[0]
    expected = brute_force_search(unit_vectors(700), query[0], 5)
    assert [hit.photo_id for hit in hits] == [photo_id for photo_id, _ in expected]


def test_copy_to_another_store_and_back(ray_cluster, folder, tmp_path, milvus):
    there, back = f"{milvus}/copied", str(tmp_path / "back")
    publish_gallery(folder, photos := unit_vectors(700))
    copied = gallery("copy", folder.uri, there, "--index-threshold", 100, "--columns", "category")
    assert (copied["ok"], copied["index"]["kind"], copied["checkpoint"]) == (700, "IVF_FLAT", DIGEST)
    assert gallery("copy", there, back)["ok"] == 700
    digests = {read_manifest(Folder(uri), "gallery").digest for uri in (folder.uri, there, back)}
    assert len(digests) == 1
    query = unit_vectors(1, seed=9)
    expected = [photo_id for photo_id, _ in brute_force_search(photos, query[0], 5)]
    for uri in (there, back):
        assert [hit.photo_id for hit in open_gallery(uri, DIGEST).search(query, 5)[0]] == expected
    publish_gallery(folder, unit_vectors(300))
    with pytest.raises(InputError, match="--max-removed: 400 of 700 published photos"):
        gallery("copy", folder.uri, there)
    assert gallery("copy", folder.uri, there, "--yes")["ok"] == 300
    assert gallery("rollback", there, 1)["index"]["kind"] == "IVF_FLAT"


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--index", "IVF_SQ"), "--index: .* IVF_FLAT"), (("--columns", "size"), "--columns: no column 'size'")],
)
def test_copy_checks_its_options_before_it_writes(folder, milvus, options, message):
    publish_gallery(folder, unit_vectors(8))
    with pytest.raises(InputError, match=message):
        gallery("copy", folder.uri, f"{milvus}/refused", *options)
    assert not Folder(f"{milvus}/refused").list_files("tables/*")
    with pytest.raises(InputError, match="is the gallery itself"):
        gallery("copy", folder.uri, folder.uri)


@pytest.mark.parametrize(("old", "new"), RETIRED.items())
def test_retired_subcommand_names_the_new_one(old, new):
    with pytest.raises(InputError, match=f"^{old} is now {new}$"):
        gallery(old, "s3://B/gallery", "--keep", 3)


def test_low_recall_is_not_published_and_optimize_can_be_repeated(ray_cluster, folder, monkeypatch):
    publish_gallery(folder, unit_vectors(300))
    before = open_gallery(folder.uri, DIGEST).version
    with monkeypatch.context() as patch:
        patch.setattr("stbir.gallery.gated_publish.MIN_RECALL", 1.1)
        with pytest.raises(JobFailedError, match=r"is below 1\.1; not published"):
            gallery("optimize", folder.uri)
    assert open_gallery(folder.uri, DIGEST).version == before
    optimized = gallery("optimize", folder.uri, "--index", "IVF_SQ", "--index-threshold", 100)
    assert optimized["version"] > before


def test_version_that_is_slower_than_the_published_one_is_not_published(ray_cluster, folder, monkeypatch):
    before = publish_gallery(folder, unit_vectors(300), IndexPlan(4, 4)).version
    monkeypatch.setattr("stbir.gallery.publish.MAX_SLOWDOWN", 0)
    with pytest.raises(JobFailedError, match=r"times as long as in the published version .* not published"):
        gallery("optimize", folder.uri, "--index-threshold", 100)
    assert open_gallery(folder.uri, DIGEST).version == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "price"], "--columns: no column 'price'; available: photo_id, category"),
        (["--queries", "nowhere.npy"], r"--queries: nowhere\.npy"),
        (["--queries", "narrow.npy"], r"narrow\.npy: shape \(20, 3\); give .* \(Q, 16\)"),
    ],
)
def test_invalid_columns_or_queries_are_rejected_before_writing(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    np.save("narrow.npy", np.ones((20, 3), np.float32))
    before = publish_gallery(Folder("gallery"), unit_vectors(30)).version
    with pytest.raises(InputError, match=message):
        gallery("optimize", "gallery", *options)
    assert open_table(Folder("gallery")).version == before


def test_each_version_keeps_its_checkpoint(ray_cluster, folder, tmp_path):
    publish_gallery(folder, unit_vectors(30))
    gallery("tag", folder.uri, "initial")
    manifest = read_manifest(folder, "gallery")
    publish_gallery(folder, unit_vectors(20), digest=OTHER_DIGEST)
    out = Folder(str(tmp_path / "out"))
    assert gallery("export", folder.uri, out.uri, "--version", "initial")["checkpoint"] == DIGEST
    assert read_manifest(out, "vectors").made_from == DIGEST
    write_manifest(folder, manifest, files={})  # as if publishing had stopped between tag and manifest
    optimized = gallery("optimize", folder.uri)
    assert (optimized["checkpoint"], optimized["ok"]) == (OTHER_DIGEST, 20)


def test_failed_export_removes_the_manifest_of_the_last_one(folder, tmp_path):
    out = Folder(str(tmp_path / "out"))
    publish_gallery(folder, unit_vectors(30))
    gallery("export", folder.uri, out.uri)
    folder.child("photos.lance/data").remove()
    with pytest.raises(pa.ArrowInvalid, match=r"photos\.lance"):
        gallery("export", folder.uri, out.uri)
    assert not out.exists("manifest.json")


def test_job_that_loses_the_lock_does_not_publish(ray_cluster, folder, monkeypatch):
    before, optimize = publish_gallery(folder, unit_vectors(30)).version, versions.optimize

    def optimize_and_lose_lock(*args):
        folder.write(f"writer/{10**20}.json", b"{}")
        return optimize(*args)

    monkeypatch.setattr(versions, "optimize", optimize_and_lose_lock)
    with pytest.raises(InputError, match=r"another writer has taken over, number 10{20};"):
        gallery("optimize", folder.uri)
    assert open_table(folder, PUBLISHED).version == before


@pytest.mark.parametrize(("num_nodes", "workers"), [(1, None), (2, 2), (9, 4)])
def test_index_build_is_distributed_over_nodes_with_cpus(tmp_path, monkeypatch, num_nodes, workers):
    builds = []
    monkeypatch.setattr(placement, "num_worker_nodes", lambda: num_nodes)
    monkeypatch.setattr(index_build, "_MIN_DISTRIBUTED_ROWS", 400)
    monkeypatch.setattr(index_build, "build_index", lambda dataset, plan: builds.append(None))
    monkeypatch.setattr(
        index_build, "build_distributed", lambda dataset, plan, num_workers: builds.append(num_workers)
    )
    uri = table_uri(Folder(str(tmp_path)))
    dataset = lance.write_dataset(make_table(unit_vectors(400)), uri, max_rows_per_file=100)
    index_build.build_on_cluster(dataset, IndexPlan(8, 8))
    assert builds == [workers]


@pytest.mark.slow(reason="worker processes start")
def test_a_version_is_prepared_in_tasks(ray_cluster, folder, monkeypatch):
    """As in this process, though index and scores are shared; an error comes back as it is."""
    uri = table_uri(folder)
    dataset = lance.write_dataset(make_table(unit_vectors(2000)), uri, max_rows_per_file=500)
    candidate = prepare_on_cluster(folder, dataset.version, DIGEST, IndexPlan(8, 2))
    expected = prepare(folder, candidate.version, DIGEST, IndexPlan(8, 2))
    assert candidate.recalls.keys() == expected.recalls.keys()
    assert min(candidate.recall, expected.recall) >= 0.99
    monkeypatch.setattr(index_build, "_MIN_DISTRIBUTED_ROWS", 400)
    query_QD = unit_vectors(7)
    scores = score_on_cluster(dataset, query_QD, 20)
    np.testing.assert_allclose(scores, exact_scores(dataset, query_QD, 20), atol=1e-6)
    with pytest.raises(InputError, match=r"photos\.lance"):
        prepare_on_cluster(folder, 99, DIGEST, None)


@pytest.mark.slow(reason="two worker processes start")
def test_distributed_index_matches_brute_force(ray_cluster, folder):
    photos = unit_vectors(2000)
    dataset = lance.write_dataset(make_table(photos), table_uri(folder), max_rows_per_file=500)
    build_distributed(dataset, plan := IndexPlan(8, 8), num_workers=2)
    assert [len(index.segments) for index in dataset.describe_indices()] == [2]
    gallery = Gallery(dataset, folder, metadata=Metadata.of(DIGEST, plan))
    for query, hits in zip(photos[:20], gallery.search(photos[:20], 5), strict=True):
        assert [hit.photo_id for hit in hits] == [name for name, _ in brute_force_search(photos, query, 5)]
