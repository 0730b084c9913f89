"""`ray_jobs/gallery.py`, command by command, and the parallel build of an index."""

import lance
import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.cli import Failed
from ray_jobs.cluster import placement
from ray_jobs.embedding import index_build
from ray_jobs.embedding.index_build import in_parallel
from ray_jobs.gallery import main, parser
from stbir.errors import InputError
from stbir.gallery import versions
from stbir.gallery.gallery import PUBLISHED, Facts, Gallery, open_gallery, open_table, table_uri
from stbir.gallery.index import IndexPlan
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest, write_manifest
from tests.gallery.test_gallery import OTHERS, OURS, made, rows_of, slow_search, unit


def gallery(*words: object) -> dict[str, object]:
    return main(parser().parse_args([str(word) for word in words]))


def test_a_life(ray_cluster, tmp_path):
    uri, folder = str(tmp_path / "gallery"), Folder(str(tmp_path / "gallery"))
    made(folder, unit(700))
    assert gallery("name", uri, "first")["version"] == open_gallery(uri, OURS).version
    optimized = gallery("optimize", uri, "--index", "IVF_SQ", "--index-above", 100, "--columns", "category")
    assert optimized["index"]["kind"] == "IVF_SQ"
    assert set(optimized["recalls"]) == {"photo", "between", "drawn"}
    np.save(tmp_path / "q.npy", unit(20, seed=5))
    again = gallery("optimize", uri, "--rebuild", "--index-above", 100, "--queries", tmp_path / "q.npy")
    assert set(again["recalls"]) == {"photo", "between", "drawn", "given"}
    assert [each["published"] for each in gallery("versions", uri)["versions"]] == [True, False, False]
    assert gallery("rollback", uri, "first")["index"] == {"kind": "exact"}
    assert gallery("clean", uri, "--keep", 1, "--older-than", 0)["releases_removed"] == 1
    gallery("export", uri, tmp_path / "out", "--form", "npy")
    back = gallery("import", tmp_path / "again", tmp_path / "out")
    assert (back["ok"], back["checkpoint"]) == (700, OURS)
    hits = open_gallery(str(tmp_path / "again"), OURS).search(unit(1, seed=9), 5)[0]
    assert [hit.photo_id for hit in hits] == [
        name for name, _ in slow_search(unit(700), unit(1, seed=9)[0], 5, None)
    ]


def test_what_finds_too_little_is_not_published_and_can_be_tried_again(ray_cluster, tmp_path, monkeypatch):
    made(Folder(str(tmp_path)), unit(300))
    before = open_gallery(str(tmp_path), OURS).version
    with monkeypatch.context() as stricter:
        stricter.setattr("ray_jobs.jobs.gallery.MIN_RECALL", 1.1)
        with pytest.raises(Failed, match=r"is below 1\.1; not published"):
            gallery("optimize", tmp_path)
    assert open_gallery(str(tmp_path), OURS).version == before
    assert gallery("optimize", tmp_path, "--index", "IVF_SQ", "--index-above", 100)["version"] > before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--columns", "price"], "--columns: there is no 'price'; there is photo_id, category"),
        (["--queries", "nowhere.npy"], r"--queries: nowhere\.npy"),
        (["--queries", "narrow.npy"], r"narrow\.npy: shape \(20, 3\); give .* \(Q, 16\)"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(tmp_path, monkeypatch, more, says):
    monkeypatch.chdir(tmp_path)
    np.save("narrow.npy", np.ones((20, 3), np.float32))
    before = made(Folder("gallery"), unit(30)).version
    with pytest.raises(InputError, match=says):
        gallery("optimize", "gallery", *more)
    assert open_table(Folder("gallery")).version == before


def test_each_version_is_of_its_own_checkpoint(ray_cluster, tmp_path):
    uri, folder = str(tmp_path / "gallery"), Folder(str(tmp_path / "gallery"))
    made(folder, unit(30))
    gallery("name", uri, "first")
    first = read_manifest(folder, "gallery")
    made(folder, unit(20), digest=OTHERS)
    assert gallery("export", uri, tmp_path / "out", "--version", "first")["checkpoint"] == OURS
    assert read_manifest(Folder(str(tmp_path / "out")), "vectors").made_from == OURS
    write_manifest(folder, first)  # as where publishing was cut short between tag and manifest
    optimized = gallery("optimize", uri)
    assert (optimized["checkpoint"], optimized["ok"]) == (OTHERS, 20)


def test_an_export_cut_short_leaves_no_manifest_of_the_one_before(tmp_path):
    uri, out = tmp_path / "gallery", Folder(str(tmp_path / "out"))
    made(Folder(str(uri)), unit(30))
    gallery("export", uri, out.uri)
    Folder(str(uri)).child("photos.lance/data").remove()
    with pytest.raises(pa.ArrowInvalid, match=r"photos\.lance"):
        gallery("export", uri, out.uri)
    assert not out.exists("manifest.json")


def test_who_has_lost_the_lock_publishes_nothing(ray_cluster, tmp_path, monkeypatch):
    folder = Folder(str(tmp_path))
    before, fold = made(folder, unit(30)).version, versions.fold

    def slow(*given):
        folder.write("writer/00000099.json", b"{}")
        return fold(*given)

    monkeypatch.setattr(versions, "fold", slow)
    with pytest.raises(InputError, match="another writer has taken over, number 99"):
        gallery("optimize", tmp_path)
    assert open_table(folder, PUBLISHED).version == before


@pytest.mark.parametrize(("machines", "workers"), [(1, None), (2, 2), (9, 4)])
def test_an_index_is_built_by_the_machines_that_have_cpus_or_here(tmp_path, monkeypatch, machines, workers):
    asked = []
    monkeypatch.setattr(placement, "machines", lambda: machines)
    monkeypatch.setattr(index_build, "_WORTH_IT", 400)
    monkeypatch.setattr(index_build, "build", lambda dataset, plan: asked.append(None))
    monkeypatch.setattr(index_build, "in_parallel", lambda dataset, plan, workers: asked.append(workers))
    uri = table_uri(Folder(str(tmp_path)))
    dataset = lance.write_dataset(rows_of(unit(400)), uri, max_rows_per_file=100)
    index_build.build_on_cluster(dataset, IndexPlan(8, 8))
    assert asked == [workers]


@pytest.mark.slow(reason="two worker processes start")
def test_an_index_built_in_parallel_finds_the_same(ray_cluster, tmp_path):
    folder, photos = Folder(str(tmp_path)), unit(2000)
    dataset = lance.write_dataset(rows_of(photos), table_uri(folder), max_rows_per_file=500)
    in_parallel(dataset, plan := IndexPlan(8, 8), workers=2)
    assert len(open_table(folder).describe_indices()[0].segments) == 2
    found = Gallery(dataset, folder, facts=Facts.of(OURS, plan))
    for query, hits in zip(photos[:20], found.search(photos[:20], 5), strict=True):
        assert [hit.photo_id for hit in hits] == [name for name, _ in slow_search(photos, query, 5, None)]
