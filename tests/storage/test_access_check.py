"""A place is tried before it is needed: all four rights, its clock, and no trace is left."""

import os
import time
from pathlib import Path

import pytest

from stbir.errors import InputError
from stbir.storage.access_check import probe
from stbir.storage.folder import Folder


def test_a_good_place_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("mine")
    assert abs(probe(Folder(str(tmp_path / "full")))) < 30
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["kept"]
    probe(Folder(str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


def test_an_object_store_too(s3: str) -> None:
    assert abs(probe(Folder(f"{s3}/probed"))) < 30
    assert Folder(f"{s3}/probed").names() == []


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be read or written"):
        probe(Folder(str(tmp_path / "file" / "below")))


class Forgetful(Folder):
    """A store that takes everything and lists nothing."""

    def names(self, pattern: str = "*") -> list[str]:
        return []


class Late(Folder):
    """A store whose clock is an hour behind."""

    def write(self, name: str, data: bytes) -> None:
        super().write(name, data)
        os.utime(self.at(name), times=(time.time() - 3600,) * 2)


class Shared(Folder):
    """A place where another job begins while this one looks."""

    def names(self, pattern: str = "*") -> list[str]:
        self.write("theirs", b"begun")
        return super().names(pattern)


def test_what_another_job_has_begun_there_stays(tmp_path: Path) -> None:
    probe(Shared(str(tmp_path / "new")))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["theirs"]


def test_what_is_not_listed_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not listed; check its rights"):
        probe(Forgetful(str(tmp_path / "there")))


def test_the_places_clock_is_told(tmp_path: Path) -> None:
    assert probe(Late(str(tmp_path / "there"))) == pytest.approx(-3600, abs=30)
