"""The CPU half of an embedding job, as a plain function."""

import hashlib
from pathlib import Path

from ray_jobs.embedding.decode import decode_part
from stbir.catalogue.folder import FolderCatalogue
from stbir.data.validation import Fault
from tests.data.pictures import png, tree


def test_a_duplicate_is_quarantined_with_the_hash_of_its_bytes(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(str(tree(tmp_path, {"a.png": png(1), "b.png": png(2)})))
    [part] = catalogue.parts()
    decoded, pixels = decode_part(catalogue, part, frozenset({1}), {}, 8)
    content = hashlib.sha256(png(2)).hexdigest()
    assert decoded.photo_ids == ["a.png"]
    assert decoded.faults == [Fault("b.png", "duplicate id", None, "the first one stays", content)]
    assert pixels.shape == (1, 3, 8, 8)
