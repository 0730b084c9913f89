"""Re-runs of an embedding job for a catalogue with new, changed, removed and broken photos."""

import hashlib
from pathlib import Path

import lance
import pyarrow.parquet as pq
import pytest

from ray_jobs.embed_gallery import parser
from ray_jobs.jobs.embed_gallery import embed_gallery
from stbir.errors import InputError, JobFailedError
from stbir.gallery.gallery import open_gallery, open_table
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.lock import writer_lock
from stbir.storage.manifest import read_manifest
from tests.data.broken import broken_images, jpeg
from tests.data.image_files import write_files
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

COUNTS = ("in", "ok", "embedded", "already_there", "quarantined", "failed", "new", "changed", "removed")


def embed(gallery: object, *options: object) -> dict[str, object]:
    return embed_gallery(parser().parse_args(["--gallery", str(gallery), *map(str, options)]))


def counts(summary: dict[str, object]) -> list[object]:
    return [summary[name] for name in COUNTS]


def published_rows(gallery: object) -> list[dict[str, object]]:
    return open_table(Folder(str(gallery)), "published").to_table().to_pylist()


@pytest.mark.endurance
@pytest.mark.slow(reason="two jobs with an actor that imports the model libraries, and three without")
def test_rerun_embeds_new_photos_and_removes_deleted_ones(ray_cluster: str, tmp_path: Path) -> None:
    model, gallery = save_smoke_checkpoint(str(tmp_path / "model")), tmp_path / "gallery"
    photos = tmp_path / "photos"
    good = {f"kind {n % 3}/{n:03}.jpg": jpeg(n) for n in range(300)}
    bad = {f"kind 1/{name}.png": data for name, data in broken_images().items()}
    write_files(photos, {**good, **bad})
    options = ["--checkpoint", model, "--photos", f"folder:{photos}", "--max-error-rate", 0.05]

    assert counts(embed(gallery, *options)) == [308, 300, 300, 0, 8, 0, 300, 0, 0]
    before = published_rows(gallery)
    assert [row["photo_id"] for row in before] == sorted(good)
    assert all(row["content"] == hashlib.sha256(good[row["photo_id"]]).hexdigest() for row in before)
    quarantine = pq.read_table(gallery / "quarantine.parquet").to_pylist()
    assert {each["photo_id"]: each["content"] for each in quarantine} == {
        name: hashlib.sha256(data).hexdigest() for name, data in bad.items()
    }

    assert counts(embed(gallery, *options)) == [308, 300, 0, 300, 8, 0, 0, 0, 0]
    assert published_rows(gallery) == before

    changed, added = jpeg(1000), jpeg(2000)
    write_files(photos, {"kind 0/000.jpg": changed, "kind 1/001.jpg": b"broken", "kind 4/new.jpg": added})
    (photos / "kind 2/002.jpg").unlink()
    (photos / "kind 0/003.jpg").unlink()
    reader = open_gallery(str(gallery), checkpoint.read_digest(model))
    assert counts(embed(gallery, *options)) == [307, 298, 2, 296, 9, 0, 1, 1, 3]
    removed = {"kind 0/000.jpg", "kind 1/001.jpg", "kind 2/002.jpg", "kind 0/003.jpg"}
    rows = published_rows(gallery)
    assert rows[:-2] == [row for row in before if row["photo_id"] not in removed]
    assert [row["photo_id"] for row in rows[-2:]] == ["kind 0/000.jpg", "kind 4/new.jpg"]
    assert reader.count == 300  # a reader keeps its version
    assert reader.thumbnail("kind 2/002.jpg")

    summary = embed(gallery, "--delete", "kind 4/new.jpg", "kind 1/004.jpg")
    assert (summary["ok"], summary["removed"]) == (296, 2)
    assert "kind 1/004.jpg" not in {row["photo_id"] for row in published_rows(gallery)}
    with pytest.raises(InputError, match="has no photo 'kind 4/new"):
        embed(gallery, "--delete", "kind 4/new.jpg")
    manifest = read_manifest(Folder(str(gallery)), "gallery")

    write_files(photos, {f"kind 1/{n}.jpg": b"" for n in range(30)})
    message = r"39 of 337 photos cannot be embedded \(39 x photo does not decode\)"
    with pytest.raises(JobFailedError, match=message):
        embed(gallery, *options)
    assert read_manifest(Folder(str(gallery)), "gallery") == manifest
    assert len(published_rows(gallery)) == 296
    assert len(lance.dataset(str(gallery / "photos.lance")).versions()) < 16


def test_second_writer_is_rejected(tmp_path: Path) -> None:
    model = save_smoke_checkpoint(str(tmp_path / "model"))
    photos = write_files(tmp_path / "photos", {"x.jpg": jpeg(0)})
    with (
        writer_lock(Folder(str(tmp_path / "gallery"))),
        pytest.raises(InputError, match=r"locked by .*; wait until it is done"),
    ):
        embed(tmp_path / "gallery", "--checkpoint", model, "--photos", f"folder:{photos}")
