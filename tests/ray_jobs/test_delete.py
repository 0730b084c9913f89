"""`embed_gallery.py --delete` in a process of its own, which connects to the Ray cluster itself."""

from pathlib import Path

import pytest

from stbir.gallery.gallery import open_gallery
from stbir.storage.folder import Folder
from tests.conftest import Command
from tests.gallery.test_gallery import DIGEST, publish_gallery, unit_vectors


@pytest.mark.slow(reason="a process that imports the model libraries")
def test_deletion_publishes_a_smaller_indexed_gallery_or_an_empty_one(
    command: Command, tmp_path: Path
) -> None:
    publish_gallery(Folder(str(tmp_path)), unit_vectors(300))
    ran = command("embed_gallery", "--gallery", tmp_path, "--delete", "photo-7", "--index-threshold", 100)
    assert ran.code == 0, ran.stderr
    assert (ran.summary["ok"], ran.summary["removed"], ran.summary["index"]["kind"]) == (299, 1, "IVF_SQ")
    assert open_gallery(str(tmp_path), DIGEST).vector("photo-7") is None
    others = [f"photo-{n}" for n in range(300) if n != 7]
    delete = ["embed_gallery", "--gallery", tmp_path, "--delete", *others, "--index-threshold", 100]
    assert "--max-removed: 299 of 299 published photos" in command(*delete).stderr
    ran = command(*delete, "--yes")
    assert ran.code == 0, ran.stderr
    assert (ran.summary["ok"], ran.summary["removed"], ran.summary["index"]["kind"]) == (0, 299, "exact")
    gallery = open_gallery(str(tmp_path), DIGEST)
    assert (gallery.count, gallery.search(unit_vectors(1), 5)) == (0, [[]])
