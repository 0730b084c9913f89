"""The update of a gallery's table in this process: counts, faults, removals and unchanged rows."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.registry import open_catalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.data.shards import open_shards
from stbir.data.validation import Fault
from stbir.embedding.counts import count_not_taken
from stbir.embedding.gallery_update import _check_faults, _check_listing
from stbir.errors import InputError, JobFailedError
from stbir.storage.folder import Folder
from tests.catalogue.test_catalogue import write_tar
from tests.data.image_files import png
from tests.ray_jobs.test_embed_gallery import ROWS, write_shards


def test_missing_photos_fail_for_files_and_warn_for_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards = ShardsCatalogue(open_shards(write_shards(str(tmp_path / "shards"), ROWS)))
    counts = {"in": 38, "not_taken": 2}
    _check_listing(shards, 40, counts)
    assert counts == {"in": 38, "not_taken": 2, "listed": 40}
    (tmp_path / "photos.csv").write_text("photo_id,uri,category\na,a.png,chair\n")
    write_tar(tmp_path / "photos.tar", {"a.png": png(1)})
    table = open_catalogue(f"table:{tmp_path}/photos.csv")
    for catalogue in (shards, table, open_catalogue(f"webdataset:{tmp_path}/photos.tar")):
        with pytest.raises(JobFailedError, match="39 photos were read, 40 were listed; not published"):
            _check_listing(catalogue, 40, {"in": 39, "not_taken": 0})
    _check_listing(FolderCatalogue(str(tmp_path)), 41, counts)
    assert "40 photos were read, 41 were listed: the folder has changed meanwhile" in caplog.text
    assert counts["listed"] == 41


def test_listed_files_that_are_no_photos_are_counted_and_are_no_errors(tmp_path: Path) -> None:
    not_taken = [*[Fault("x.txt", "not an image", detail=".txt")] * 3, Fault("x", "link to a listed folder")]
    faults = [*not_taken, Fault("y", "photo does not decode")]
    assert count_not_taken(faults) == {"not an image": {".txt": 3}, "link to a listed folder": {"": 1}}
    counts = {"in": 10, "ok": 9, "embedded": 9, "already_there": 0, "quarantined": 1, "failed": 0}
    counts["not_taken"] = 4
    _check_faults(Folder(str(tmp_path)), faults, counts, 0.1)
    assert pq.read_table(tmp_path / "quarantine.parquet").num_rows == 5
    with pytest.raises(JobFailedError, match="1 of 10 photos"):
        _check_faults(Folder(str(tmp_path)), faults, counts, 0.09)
    with pytest.raises(InputError, match="--photos: none of the 4 listed files is a photo"):
        _check_faults(Folder(str(tmp_path)), not_taken, {**counts, "in": 0, "ok": 0}, 0.1)
