"""The decode task of an embedding job, called as a function."""

import hashlib
from pathlib import Path

from ray_jobs.embedding.decode import decode_part
from stbir.catalogue.folder import FolderCatalogue
from stbir.data.validation import Fault
from tests.data.image_files import png, write_files


def test_duplicate_id_is_quarantined_with_its_content_hash(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(str(write_files(tmp_path, {"a.png": png(1), "b.png": png(2)})))
    [part] = catalogue.parts()
    decoded, pixels = decode_part(catalogue, part, frozenset({1}), {}, 8)
    content = hashlib.sha256(png(2)).hexdigest()
    assert decoded.photo_ids == ["a.png"]
    assert decoded.faults == [Fault("b.png", "duplicate id", None, "the first one stays", content)]
    assert pixels.shape == (1, 3, 8, 8)


def test_the_fault_of_a_duplicate_id_has_its_own_reason_as_detail(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(str(write_files(tmp_path, {"a.txt": "a note", "b.png": png(1)})))
    [part] = catalogue.parts()
    decoded, _ = decode_part(catalogue, part, frozenset({0}), {}, 8)
    assert decoded.faults == [Fault("a.txt", "duplicate id", None, "not an image")]
