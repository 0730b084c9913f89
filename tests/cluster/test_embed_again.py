"""The same gallery from a catalogue that grows, changes, shrinks, and is spoilt: every row counted."""

import hashlib
from pathlib import Path

import lance
import pyarrow.parquet as pq
import pytest

from ray_jobs.cli import Failed
from ray_jobs.embed_gallery import parser
from ray_jobs.jobs.embed_gallery import embed_gallery
from stbir.errors import InputError
from stbir.gallery.gallery import open_gallery, open_table
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.lock import only_writer
from stbir.storage.manifest import read_manifest
from tests.data.broken import eight, jpeg
from tests.data.pictures import tree
from tests.ray_jobs.test_embed_gallery import smoke

COUNTS = ("in", "ok", "embedded", "already_there", "quarantined", "failed", "new", "changed", "removed")


def embed(gallery: object, *words: object) -> dict[str, object]:
    return embed_gallery(parser().parse_args(["--gallery", str(gallery), *map(str, words)]))


def counts(ran: dict[str, object]) -> list[object]:
    return [ran[name] for name in COUNTS]


def rows(gallery: object) -> list[dict[str, object]]:
    return open_table(Folder(str(gallery)), "published").to_table().to_pylist()


@pytest.mark.endurance
@pytest.mark.slow(reason="two jobs with an actor that imports the model libraries, and three without")
def test_only_what_is_new_is_embedded_and_what_is_gone_goes(ray_cluster: str, tmp_path: Path) -> None:
    model, gallery, photos = smoke(str(tmp_path / "model")), tmp_path / "gallery", tmp_path / "photos"
    good = {f"kind {n % 3}/{n:03}.jpg": jpeg(n) for n in range(300)}
    bad = {f"kind 1/{way}.png": data for way, data in eight().items()}
    tree(photos, {**good, **bad})
    again = ["--checkpoint", model, "--photos", f"folder:{photos}", "--max-bad", 0.05]

    first = embed(gallery, *again)
    assert counts(first) == [308, 300, 300, 0, 8, 0, 300, 0, 0]
    assert [row["photo_id"] for row in rows(gallery)] == sorted(good)
    assert all(row["content"] == hashlib.sha256(good[row["photo_id"]]).hexdigest() for row in rows(gallery))
    quarantine = pq.read_table(gallery / "quarantine.parquet").to_pylist()
    spoilt = {each["photo_id"]: each["content"] for each in quarantine}
    assert spoilt == {name: hashlib.sha256(data).hexdigest() for name, data in bad.items()}
    before = rows(gallery)

    same = embed(gallery, *again)
    assert counts(same) == [308, 300, 0, 300, 8, 0, 0, 0, 0]
    assert rows(gallery) == before

    tree(photos, {"kind 0/000.jpg": jpeg(1000), "kind 1/001.jpg": b"spoilt", "kind 4/new.jpg": jpeg(2000)})
    (photos / "kind 2/002.jpg").unlink()
    (photos / "kind 0/003.jpg").unlink()
    reader = open_gallery(str(gallery), checkpoint.read_digest(model))
    third = embed(gallery, *again)
    assert counts(third) == [307, 298, 2, 296, 9, 0, 1, 1, 3]
    gone = {"kind 0/000.jpg", "kind 1/001.jpg", "kind 2/002.jpg", "kind 0/003.jpg"}
    kept = [row for row in before if row["photo_id"] not in gone]
    assert rows(gallery)[:-2] == kept
    assert [row["photo_id"] for row in rows(gallery)[-2:]] == ["kind 0/000.jpg", "kind 4/new.jpg"]
    assert reader.count == 300  # still on its version
    assert reader.thumbnail("kind 2/002.jpg")

    smaller = embed(gallery, "--delete", "kind 4/new.jpg", "kind 1/004.jpg")
    assert (smaller["ok"], smaller["removed"]) == (296, 2)
    assert "kind 1/004.jpg" not in {row["photo_id"] for row in rows(gallery)}
    with pytest.raises(InputError, match="has no photo 'kind 4/new"):
        embed(gallery, "--delete", "kind 4/new.jpg")
    manifest = read_manifest(Folder(str(gallery)), "gallery")

    tree(photos, {f"kind 1/{n}.jpg": b"" for n in range(30)})
    with pytest.raises(Failed, match=r"39 of 337 photos cannot be embedded \(39 x photo does not decode\)"):
        embed(gallery, *again)
    assert read_manifest(Folder(str(gallery)), "gallery") == manifest
    assert len(rows(gallery)) == 296
    versions = lance.dataset(str(gallery / "photos.lance")).versions()
    assert len(versions) < 16


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    model, photos = smoke(str(tmp_path / "model")), tree(tmp_path / "photos", {"x.jpg": jpeg(0)})
    with (
        only_writer(Folder(str(tmp_path / "gallery"))),
        pytest.raises(InputError, match="writes to it now; wait until it is done"),
    ):
        embed(tmp_path / "gallery", "--checkpoint", model, "--photos", f"folder:{photos}")
