"""Galleries made in this process: index, update, search, and the hits."""

import io
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stbir
from stbir import Condition, InputError, JobFailedError, Model
from stbir.gallery.gallery import open_gallery as open_table
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.catalogue.test_catalogue import write_tar
from tests.data.image_files import png, write_files
from tests.ray_jobs.test_embed_gallery import ROWS, save_smoke_checkpoint, write_shards


@pytest.fixture(params=["lance", "milvus"])
def gallery_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a new gallery in each store of vectors."""
    if request.param == "lance":
        return str(tmp_path / "gallery")
    return f"{request.getfixturevalue('milvus')}/{request.function.__name__}"


def brute_force(model: Model, query: np.ndarray, photos: Path) -> list[str]:
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    scores = model.encode_photo([photos / name for name in names]) @ query[0]
    return [names[n] for n in np.argsort(-scores, kind="stable")]


def test_hits_are_those_of_a_brute_force_search(
    model: Model, photos: Path, sketch_file: Path, gallery_uri: str
) -> None:
    gallery = stbir.index(photos, model, gallery_uri)
    assert (len(gallery), gallery.categories) == (8, ["a", "b"])
    for sketch, text in ((sketch_file, "red seat"), (sketch_file, None), (None, "blue")):
        hits = gallery.search(sketch, text, k=3)
        query = model.encode_query(sketch, text)
        assert [hit.photo_id for hit in hits] == brute_force(model, query, photos)[:3]
        [[expected]] = model.encode_photo(hits[0].uri or "") @ query.T
        assert hits[0].score == pytest.approx(float(expected), abs=1e-5)
        assert Path(hits[0].uri or "") == photos / hits[0].photo_id
    only_b = gallery.search(text="blue", k=8, category="b")
    assert {hit.category for hit in only_b} == {"b"}
    where = [Condition("photo_id", "eq", "a/2.png")]
    assert [hit.photo_id for hit in gallery.search(text="blue", where=where)] == ["a/2.png"]


def test_contributions_of_words_are_differences_of_scores(
    model: Model, photos: Path, sketch_file: Path, tmp_path: Path
) -> None:
    gallery = stbir.index(photos, model, tmp_path / "gallery")

    def score(text: str) -> float:
        hits = gallery.search(sketch_file, text, sketch_weight=0.3)
        return next(hit.score for hit in hits if hit.photo_id == "a/4.png")

    hit = next(hit for hit in gallery.search(text="red") if hit.photo_id == "a/4.png")
    explanation = gallery.explain(hit, sketch_file, "red old seat", sketch_weight=0.3)
    whole = score("red old seat")
    expected = {"red": whole - score("old seat"), "old": whole - score("red seat")}
    assert explanation.score == pytest.approx(whole, abs=1e-5)
    assert {word: dict(explanation.words)[word] for word in expected} == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InputError, match=r"hit: 'a/99.png' is not in the gallery"):
        gallery.explain("a/99.png", text="red")
    with pytest.raises(InputError, match="query: neither sketch nor text"):
        gallery.explain(hit)


def test_the_same_call_again_updates(model: Model, photos: Path, gallery_uri: str) -> None:
    stbir.index(photos, model, gallery_uri)
    same = stbir.index(photos, model, gallery_uri)
    assert [same.counts[name] for name in ("embedded", "already_there", "new", "removed")] == [0, 8, 0, 0]
    write_files(photos, {"a/9.png": png(9), "a/0.png": png(77)})
    (photos / "b/1.png").unlink()
    updated = stbir.index(photos, model, gallery_uri)
    counts = [updated.counts[name] for name in ("embedded", "new", "changed", "removed")]
    assert counts == [2, 1, 1, 1]
    ids = {hit.photo_id for hit in updated.search(text="x", k=20)}
    assert ids == {"a/0.png", "a/2.png", "a/4.png", "a/6.png", "a/9.png", "b/3.png", "b/5.png", "b/7.png"}
    assert len(same.search(text="x", k=20)) == 8  # an open gallery keeps its version


def test_too_many_removals_change_nothing(model: Model, photos: Path, gallery_uri: str) -> None:
    stbir.index(photos, model, gallery_uri)
    shutil.rmtree(photos / "b")
    with pytest.raises(InputError, match="--max-removed: 4 of 8 published photos"):
        stbir.index(photos, model, gallery_uri)
    assert len(stbir.open_gallery(gallery_uri, model)) == 8
    assert len(stbir.index(photos, model, gallery_uri, max_removed=1)) == 4


def test_bad_photos_are_counted_and_too_many_are_refused(
    model: Model, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_files(photos, {"a/bad.png": b"text", "a/notes.txt": "notes"})
    with pytest.raises(JobFailedError, match="1 of 9 photos cannot be embedded") as error:
        stbir.index(photos, model, tmp_path / "gallery")
    assert error.value.summary["quarantined"] == 1
    gallery = stbir.index(photos, model, tmp_path / "gallery", max_error_rate=0.2)
    assert gallery.counts["listed"] == 10
    assert gallery.counts["in"] + gallery.counts["not_taken"] == 10
    assert [gallery.counts[name] for name in ("ok", "quarantined", "not_taken")] == [8, 1, 1]
    assert "not an image: 1 .txt" in caplog.text


def test_more_photos_than_the_local_limit_are_for_ray(model: Model, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"photos: 8 are listed, local_limit is 7; .*embed_gallery\.py"):
        stbir.index(photos, model, tmp_path / "gallery", local_limit=7)
    assert not (tmp_path / "gallery" / "manifest.json").exists()
    assert len(stbir.index(photos, model, tmp_path / "gallery", local_limit=8)) == 8


def test_tables_tar_files_and_shards_are_recognised(model: Model, photos: Path, tmp_path: Path) -> None:
    (photos / "table.csv").write_text(
        f"photo_id,uri,text,price\nx,a/0.png,red,3\ny,{photos}/b/1.png,blue,4\n"
    )
    table = stbir.index(photos / "table.csv", model, tmp_path / "table")
    hits = table.search(text="red")
    assert {hit.photo_id: hit.caption for hit in hits} == {"x": "red", "y": "blue"}
    uris = {hit.photo_id: hit.uri for hit in hits}
    assert uris == {"x": str(photos / "a/0.png"), "y": str(photos / "b/1.png")}
    assert table.columns["price"] == "int64"
    write_tar(tmp_path / "x.tar", {"1.png": png(1), "2.png": png(2)})
    tar = stbir.index(tmp_path / "x.tar", model, tmp_path / "tar")
    assert {(hit.photo_id, hit.uri) for hit in tar.search(text="red")} == {("x/1", None), ("x/2", None)}
    shards = write_shards(str(tmp_path / "shards"), ROWS)
    assert len(stbir.index(shards, model, tmp_path / "g", split="test")) == len(ROWS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photos": "nowhere"}, "nowhere.* cannot be listed"),
        ({"split": "test"}, "split: .* is not SHARDS, and only these have splits"),
        ({"max_removed": 2}, "max_removed: 2 is not a share between 0 and 1"),
        ({"max_error_rate": -1}, "max_error_rate: -1 is not a share"),
    ],
)
def test_invalid_options_are_refused(
    model: Model, photos: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    arguments = {"photos": photos, "gallery": tmp_path / "g", **options}
    with pytest.raises(InputError, match=message):
        stbir.index(model=model, **arguments)  # type: ignore[arg-type]


def test_queries_are_checked(model: Model, photos: Path, tmp_path: Path) -> None:
    gallery = stbir.index(photos, model, tmp_path / "gallery")
    with pytest.raises(InputError, match="query: neither sketch nor text"):
        gallery.search()
    with pytest.raises(InputError, match="sketch_weight: 2 is not between"):
        gallery.search(text="x", sketch_weight=2)
    with pytest.raises(InputError, match="k: 0 is less than 1"):
        gallery.search(text="x", k=0)
    other = stbir.load(save_smoke_checkpoint(str(tmp_path / "other"), seed=1))
    with pytest.raises(InputError, match=r"made with checkpoint .*embed it again"):
        stbir.open_gallery(gallery.uri, other)


def test_hits_show_thumbnails_and_escape_captions(model: Model, photos: Path, tmp_path: Path) -> None:
    (photos / "table.csv").write_text('photo_id,uri,text\n"<b>",a/0.png,"<script>alert(1)</script>"\n')
    gallery = stbir.index(photos / "table.csv", model, tmp_path / "gallery")
    hits = gallery.search(text="x")
    page = hits._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    thumbnail = gallery.thumbnail("<b>")
    assert thumbnail is not None
    with Image.open(io.BytesIO(thumbnail)) as image:
        color = image.convert("RGB").getpixel((0, 0))
    grid = hits.show()
    assert grid.size == (208, 242)
    assert grid.getpixel((104, 104)) == color
    assert gallery.search(text="x", category="unknown")[:0].show().size == (208, 242)
    assert len(hits[0:1]) == 1
    assert repr(hits).startswith("1 hits\n  1  ")


def test_vectors_equal_those_of_the_job_on_ray(
    ray_cluster: str, checkpoint_uri: str, model: Model, photos: Path, tmp_path: Path
) -> None:
    """The job continues a gallery that was made in this process, and both publish the same rows."""
    from ray_jobs.embed_gallery import parser
    from ray_jobs.jobs.embed_gallery import embed_gallery

    local = stbir.index(photos, model, tmp_path / "local")
    (photos / "b").rename(tmp_path / "b")
    half = stbir.index(photos, model, tmp_path / "half")
    (tmp_path / "b").rename(photos / "b")
    options = ["--checkpoint", checkpoint_uri, "--photos", f"folder:{photos}", "--gallery", half.uri]
    summary = embed_gallery(parser().parse_args(options))
    assert (summary["embedded"], summary["already_there"]) == (4, 4)
    own, on_ray = (open_table(uri, model.digest) for uri in (local.uri, half.uri))
    for path in photos.rglob("*.png"):
        name = str(path.relative_to(photos))
        np.testing.assert_allclose(own.vector(name), on_ray.vector(name), atol=1e-5)
    assert own.origin == on_ray.origin == f"folder:{photos}"
    assert read_manifest(Folder(half.uri), "gallery").counts["ok"] == 8
