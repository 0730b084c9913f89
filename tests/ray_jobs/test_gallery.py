"""`ray_jobs/gallery.py`, command by command, and the parallel build of an index."""

import lance
import numpy as np
import pytest

from ray_jobs.command import Failed
from ray_jobs.gallery import main, parser
from ray_jobs.index_build import in_parallel
from stbir.data.storage import Folder
from stbir.retrieval.gallery import Facts, Gallery, open_gallery, open_table, table_uri
from stbir.retrieval.index import IndexPlan
from tests.retrieval.test_gallery import OURS, made, rows_of, slow_search, unit


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


def test_what_finds_too_little_is_not_published(ray_cluster, tmp_path, monkeypatch):
    made(Folder(str(tmp_path)), unit(300))
    before = open_gallery(str(tmp_path), OURS).version
    monkeypatch.setattr("ray_jobs.gallery.MIN_RECALL", 1.1)
    with pytest.raises(Failed, match=r"is below 1\.1; not published"):
        gallery("optimize", tmp_path)
    assert open_gallery(str(tmp_path), OURS).version == before


@pytest.mark.slow(reason="two worker processes start")
def test_an_index_built_in_parallel_finds_the_same(ray_cluster, tmp_path):
    folder, photos = Folder(str(tmp_path)), unit(2000)
    dataset = lance.write_dataset(rows_of(photos), table_uri(folder), max_rows_per_file=500)
    in_parallel(dataset, plan := IndexPlan(8, 8), workers=2)
    assert len(open_table(folder).describe_indices()[0].segments) == 2
    found = Gallery(dataset, folder, facts=Facts.of(OURS, plan))
    for query, hits in zip(photos[:20], found.search(photos[:20], 5), strict=True):
        assert [hit.photo_id for hit in hits] == [name for name, _ in slow_search(photos, query, 5, None)]
