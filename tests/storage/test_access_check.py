"""`check_access` tests all four permissions, reports the clock offset and leaves no trace."""

import os
import time
from pathlib import Path

import pytest

from stbir.errors import InputError
from stbir.storage.access_check import check_access
from stbir.storage.folder import Folder


def test_check_access_leaves_a_folder_unchanged(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("content")
    assert abs(check_access(Folder(str(tmp_path / "full")))) < 30
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["file"]
    check_access(Folder(str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


def test_check_access_leaves_an_object_store_unchanged(s3: str) -> None:
    assert abs(check_access(Folder(f"{s3}/probed"))) < 30
    assert Folder(f"{s3}/probed").list_files() == []


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be read or written"):
        check_access(Folder(str(tmp_path / "file" / "below")))


class UnlistedFolder(Folder):
    """A store that accepts writes and lists nothing."""

    def list_files(self, pattern: str = "*") -> list[str]:
        return []


class LateFolder(Folder):
    """A store whose clock is an hour behind."""

    def write(self, name: str, data: bytes) -> None:
        super().write(name, data)
        os.utime(self.path_of(name), times=(time.time() - 3600,) * 2)


class SharedFolder(Folder):
    """A folder that another job writes to during the check."""

    def list_files(self, pattern: str = "*") -> list[str]:
        self.write("theirs", b"begun")
        return super().list_files(pattern)


def test_files_of_a_concurrent_job_are_not_removed(tmp_path: Path) -> None:
    check_access(SharedFolder(str(tmp_path / "new")))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["theirs"]


def test_a_missing_list_permission_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not listed; check permissions"):
        check_access(UnlistedFolder(str(tmp_path / "folder")))


def test_check_access_returns_the_clock_offset(tmp_path: Path) -> None:
    assert check_access(LateFolder(str(tmp_path / "folder"))) == pytest.approx(-3600, abs=30)


class UnconditionalFolder(Folder):
    """A store that ignores conditional writes: each `create` succeeds."""

    def create(self, name: str, data: bytes) -> None:
        self.write(name, data)


class LostResponseFolder(Folder):
    """A store whose first response to the creation of a file is lost, so that the request is repeated."""

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        raise ConnectionResetError


def test_a_lost_response_does_not_refuse_the_storage(tmp_path: Path) -> None:
    check_access(LostResponseFolder(str(tmp_path / "folder")))
    assert not (tmp_path / "folder").exists()


def test_storage_on_which_two_writers_can_create_one_file_is_refused(tmp_path: Path) -> None:
    folder = UnconditionalFolder(str(tmp_path / "folder"))
    with pytest.raises(InputError, match=r"folder: the storage ignores conditional writes \(If-None-Match\)"):
        check_access(folder)
    assert folder.list_files() == []
