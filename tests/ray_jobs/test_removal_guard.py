"""The share of published photos that a job may remove."""

from dataclasses import replace
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.embed_gallery import parser
from ray_jobs.gallery import main as gallery_command
from ray_jobs.gallery import parser as gallery_parser
from ray_jobs.jobs.embed_gallery import embed_gallery
from stbir.embedding.removal_guard import check_photo_ids, check_removal, count_absent
from stbir.errors import InputError
from stbir.gallery.export_import import export_table
from stbir.gallery.fingerprint import short_hashes
from stbir.gallery.gallery import open_table
from stbir.gallery.table_writer import published_version
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest, write_manifest
from tests.catalogue.test_catalogue import write_tar
from tests.data.image_files import png, write_files
from tests.gallery.test_gallery import DIGEST, publish_gallery, unit_vectors
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> lance.LanceDataset:
    table = pa.table({"photo_id": [f"photo-{n}" for n in range(20)], "x": [0] * 20})
    return lance.write_dataset(table, str(tmp_path_factory.mktemp("table") / "t.lance"))


@given(st.sets(st.integers(0, 30)), st.floats(0, 1))
def test_the_share_of_absent_photos_decides(
    published: lance.LanceDataset, listed: set[int], max_removed: float
) -> None:
    ids = [f"photo-{n}" for n in listed]
    num_absent = 20 - len(listed & set(range(20)))
    if num_absent > max_removed * 20:
        with pytest.raises(InputError, match=f"{num_absent} of 20 published photos.*give --yes"):
            check_photo_ids(published, ids, max_removed)
    else:
        check_photo_ids(published, ids, max_removed)


def test_a_photo_is_absent_if_no_file_of_its_id_is_taken() -> None:
    """A listed file that is no photo counts as removed; so does a photo that is not listed."""
    published, listed = short_hashes("abcd"), short_hashes("aabcx")
    assert count_absent(published, listed) == 1
    assert count_absent(published, listed, short_hashes("abx")) == 2


def test_nothing_is_removed_if_nothing_is_published() -> None:
    check_photo_ids(None, ["x"], 0)


def test_the_limit_is_included() -> None:
    check_removal(2, 10, 0.2)
    with pytest.raises(InputError, match="3 of 10"):
        check_removal(3, 10, 0.2)


@pytest.fixture
def gallery(tmp_path: Path) -> Folder:
    folder = Folder(str(tmp_path / "gallery"))
    publish_gallery(folder, unit_vectors(10))
    return folder


def embed(gallery: Folder, *options: object) -> None:
    embed_gallery(parser().parse_args(["--gallery", gallery.uri, *map(str, options)]))


def check_unchanged(gallery: Folder, before: object) -> None:
    assert read_manifest(gallery, "gallery") == before
    published = published_version(gallery)
    assert published is not None
    assert published.count_rows() == 10


def test_a_cut_tar_and_a_shrunken_folder_remove_nothing(gallery: Folder, tmp_path: Path) -> None:
    """Both are refused before Ray starts, so that this test needs no cluster."""
    before = read_manifest(gallery, "gallery")
    checkpoint = save_smoke_checkpoint(str(tmp_path / "checkpoint"))
    write_tar(tmp_path / "x.tar", {f"{n}.png": png(n) for n in range(8)})
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:4096])
    with pytest.raises(InputError, match=r"x\.tar: not a complete tar file: .* at byte 4096"):
        embed(gallery, "--checkpoint", checkpoint, "--photos", f"webdataset:{tmp_path}/x.tar")
    photos = write_files(tmp_path / "photos", {f"photo-{n}": png(n) for n in range(7)})
    with pytest.raises(InputError, match="--max-removed: 3 of 10 published photos"):
        embed(gallery, "--checkpoint", checkpoint, "--photos", f"folder:{photos}")
    check_unchanged(gallery, before)


def test_deletion_of_most_photos_needs_a_confirmation(gallery: Folder) -> None:
    before = read_manifest(gallery, "gallery")
    with pytest.raises(InputError, match="--max-removed: 3 of 10 published photos"):
        embed(gallery, "--delete", "photo-1", "photo-2", "photo-3")
    with pytest.raises(InputError, match=r"--delete: .* has no photo 'foto-1', 'foto-2', 'foto-3'"):
        embed(gallery, "--delete", "foto-1", "foto-2", "foto-3")
    check_unchanged(gallery, before)


def test_an_incomplete_import_replaces_nothing(gallery: Folder, tmp_path: Path) -> None:
    """An export that was not copied as a whole, and one of few photos."""
    before, version = read_manifest(gallery, "gallery"), open_table(gallery).version
    export_table(open_table(gallery), DIGEST, out := Folder(str(tmp_path / "out")), "parquet")
    path = tmp_path / "out" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    import_ = ["import", gallery.uri, out.uri]
    with pytest.raises(InputError, match=r"out: 9 rows instead of the 10 that were exported; copy all files"):
        gallery_command(gallery_parser().parse_args(import_))
    pq.write_table(pq.read_table(path).slice(3), path)
    write_manifest(out, replace(read_manifest(out, "vectors"), counts={"ok": 6}), {})
    with pytest.raises(InputError, match="--max-removed: 4 of 10 published photos"):
        gallery_command(gallery_parser().parse_args(import_))
    check_unchanged(gallery, before)
    assert open_table(gallery).version == version
