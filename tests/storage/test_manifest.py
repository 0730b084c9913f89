"""Manifests of artifacts and content digests."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.manifest import (
    MANIFEST_FILE,
    Manifest,
    combine_digests,
    content_digest,
    read_manifest,
    write_manifest,
)

MANIFEST = Manifest("shards", "sha256:1", {"in": 3}, made_from="", details={"files": ["a"]})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_write_and_read_a_manifest(folder: Folder) -> None:
    write_manifest(folder, MANIFEST, files={})
    assert read_manifest(folder, "shards") == MANIFEST


def test_the_error_for_a_missing_manifest_names_the_command_that_makes_it(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"no gallery here .*make it with ray_jobs/embed_gallery\.py"):
        read_manifest(folder, "gallery")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a manifest"),
        (b'{"kind": "shards"}', "not a manifest"),
        (b"[]", "not a manifest"),
        (b'"shards"', "not a manifest"),
        (b"\xff\xfe", "not a manifest"),
        (b"\x80\x81", "not a manifest"),
        (json.dumps({"kind": "gallery", "digest": "", "counts": {}}).encode(), "holds a gallery, not shards"),
        (
            json.dumps({"kind": "shards", "digest": "", "counts": {}, "schema_version": 99}).encode(),
            "schema 99",
        ),
    ],
)
def test_an_invalid_or_other_manifest_is_refused(folder: Folder, content: bytes, message: str) -> None:
    folder.write(MANIFEST_FILE, content)
    with pytest.raises(InputError, match=message) as error:
        read_manifest(folder, "shards")
    assert "\n" not in str(error.value)
    assert folder.uri in str(error.value)


@pytest.mark.parametrize("size", [3, None])
def test_a_manifest_does_not_publish_files_that_are_not_there(folder: Folder, size: int | None) -> None:
    """Another writer may have removed or replaced them."""
    folder.write("data/a", b"1234")
    write_manifest(folder, MANIFEST, files={"data/a": 4})
    before = folder.read(MANIFEST_FILE)
    folder.remove("data/a")
    if size is not None:
        folder.write("data/a", b"1" * size)
    problem = "missing" if size is None else "has 3 bytes instead of 4"
    with pytest.raises(InputError, match=f"/data/a: {problem}.*run the command again"):
        write_manifest(folder, replace(MANIFEST, digest="sha256:2"), files={"data/a": 4})
    assert folder.read(MANIFEST_FILE) == before


def test_a_manifest_with_a_field_of_the_future_opens(folder: Folder) -> None:
    write_manifest(folder, MANIFEST, files={})
    future = {**json.loads(folder.read(MANIFEST_FILE)), "signature": {"by": "a later version"}}
    future["details"]["locality"] = 1.0
    folder.write(MANIFEST_FILE, json.dumps(future).encode())
    assert read_manifest(folder, "shards") == replace(MANIFEST, details={"files": ["a"], "locality": 1.0})


def test_the_digest_covers_names_and_bytes_but_not_the_order(folder: Folder) -> None:
    folder.write("a", b"1")
    folder.write("b", b"2")
    digest = content_digest(folder, ["a", "b"])
    assert digest == content_digest(folder, ["b", "a"])
    assert digest == combine_digests({n: sha256(c).hexdigest() for n, c in (("b", b"2"), ("a", b"1"))})
    swapped = combine_digests({n: sha256(c).hexdigest() for n, c in (("a", b"2"), ("b", b"1"))})
    assert len({digest, swapped, content_digest(folder, ["a"])}) == 3


def test_a_manifest_holds_its_creation_time(folder: Folder) -> None:
    write_manifest(folder, replace(MANIFEST, created="2026-01-01T00:00:00+00:00"), files={})
    assert read_manifest(folder, "shards").created == "2026-01-01T00:00:00+00:00"
    assert MANIFEST.created.endswith("+00:00")
