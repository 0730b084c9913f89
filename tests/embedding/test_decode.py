"""The decode task of an embedding job, called as a function."""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Part
from stbir.config import Preprocess
from stbir.data.validation import Fault
from stbir.embedding.decode import UnreadPart, decode_part
from stbir.images import decode_photo
from tests.data.image_files import png, write_files

SMALL = Preprocess(16, (0, 0, 0), (1, 1, 1))


def unread(part: Part, duplicates: Collection[int] = ()) -> UnreadPart:
    """A part of which the table has no photo."""
    num_ids = len(part.ids)
    is_duplicate = [n in duplicates for n in range(num_ids)]
    return UnreadPart(part, is_duplicate, [b""] * num_ids, [[] for _ in range(num_ids)])


def test_duplicate_id_is_quarantined_with_its_content_hash(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(str(write_files(tmp_path, {"a.png": png(1), "b.png": png(2)})))
    [part] = catalogue.parts()
    decoded, pixels = decode_part(catalogue, unread(part, {1}), SMALL)
    content = hashlib.sha256(png(2)).hexdigest()
    assert decoded.photo_ids == ["a.png"]
    assert decoded.faults == [Fault("b.png", "duplicate id", None, "the first one stays", content)]
    assert pixels.shape == (1, 3, 16, 16)


def test_the_fault_of_a_duplicate_id_has_its_own_reason_as_detail(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(str(write_files(tmp_path, {"a.txt": "a note", "b.png": png(1)})))
    [part] = catalogue.parts()
    decoded, _ = decode_part(catalogue, unread(part, {0}), SMALL)
    assert decoded.faults == [Fault("a.txt", "duplicate id", None, "not an image")]


def test_photos_are_resized_as_the_encoder_needs(tmp_path: Path) -> None:
    data = png(3, size=(40, 20))
    catalogue = FolderCatalogue(str(write_files(tmp_path, {"a.png": data})))
    [part] = catalogue.parts()
    for resize in ("pad", "stretch"):
        _, pixels = decode_part(catalogue, unread(part), replace(SMALL, resize=resize))
        assert (pixels[0] == decode_photo(data, 16, resize=resize)).all()
