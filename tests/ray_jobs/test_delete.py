"""`embed_gallery.py --delete` as a command of its own, which finds no Ray that somebody else has joined."""

from pathlib import Path

import pytest

from stbir.gallery.gallery import open_gallery
from stbir.storage.folder import Folder
from tests.conftest import Command
from tests.gallery.test_gallery import OURS, made, unit


@pytest.mark.slow(reason="a process that imports the model libraries")
def test_a_gallery_with_an_index_is_published_smaller(command: Command, tmp_path: Path) -> None:
    made(Folder(str(tmp_path)), unit(300))
    ran = command("embed_gallery", "--gallery", tmp_path, "--delete", "photo-7", "--index-above", 100)
    assert ran.code == 0, ran.stderr
    assert (ran.summary["ok"], ran.summary["removed"], ran.summary["index"]["kind"]) == (299, 1, "IVF_SQ")
    assert open_gallery(str(tmp_path), OURS).vector("photo-7") is None
