"""`Folder` on a disk, in memory and on S3."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stbir.errors import InputError
from stbir.storage.folder import Folder, read_uri


@pytest.fixture(params=["file", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "file":
        return Folder(str(tmp_path / "brackets [1] * and spaces"))
    if request.param == "memory":
        return Folder(f"memory://{tmp_path.name}")
    return Folder(f"{request.getfixturevalue('s3')}/storage/{tmp_path.name}")


def test_write_read_list_and_remove(folder: Folder) -> None:
    assert folder.list_files() == []
    assert not folder.exists()
    folder.write("a.txt", b"one")
    folder.write("deep/er/b.bin", b"two" * 1000)
    folder.write("a.txt", b"three")
    assert (folder.read("a.txt"), read_uri(f"{folder.uri}/deep/er/b.bin")) == (b"three", b"two" * 1000)
    assert folder.list_files() == ["a.txt"]
    assert folder.list_files("**") == ["a.txt", "deep/er/b.bin"]
    assert folder.child("deep").list_files("*/*.bin") == ["er/b.bin"]
    assert folder.exists("deep")
    assert not folder.exists("a")
    folder.remove("a.txt")
    folder.remove("a.txt")
    assert not folder.exists("a.txt")
    folder.remove()
    assert folder.list_files("**") == []


def test_open_reads_a_part_of_a_file(folder: Folder) -> None:
    folder.write("x", bytes(range(200)))
    with folder.open("x") as file:
        file.seek(100)
        assert file.read(3) == bytes([100, 101, 102])


def test_a_missing_file_is_an_input_error_with_its_cause(folder: Folder) -> None:
    for read in (folder.read, lambda name: folder.open(name).__enter__()):
        with pytest.raises(InputError, match="cannot be read or written") as error:
            read("missing")
        assert isinstance(error.value.__cause__, FileNotFoundError)
        assert "\n" not in str(error.value)


def test_a_failed_write_leaves_the_old_bytes(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("sub", b"old")
    with pytest.raises(InputError, match=str(tmp_path)):
        folder.write("sub/x", b"new")
    assert folder.read("sub") == b"old"
    assert os.listdir(tmp_path) == ["sub"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root has write permission everywhere")
def test_a_missing_write_permission_is_an_input_error(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="Permission denied"):
        Folder(str(tmp_path)).write("x", b"")


def test_the_error_names_an_unknown_scheme_and_a_missing_bucket(s3: str) -> None:
    with pytest.raises(InputError, match=r"carrier-pigeon://x: "):
        Folder("carrier-pigeon://x")
    with pytest.raises(InputError, match=r"s3://no-such-bucket-here"):
        Folder("s3://no-such-bucket-here/x").write("y", b"")


def test_relative_paths_refer_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Folder("out").write("x", b"1")
    assert (tmp_path / "out/x").read_bytes() == b"1"
    assert Folder("").path_of("out/x") == Folder(".").path_of("out/x") == str(tmp_path / "out/x")
    assert (read_uri("out/x"), Folder(".").read("out/x")) == (b"1", b"1")


def test_of_several_concurrent_creates_one_succeeds(folder: Folder) -> None:
    def create(number: int) -> bool:
        start.wait()
        try:
            folder.create("sub/x", str(number).encode())
        except FileExistsError:
            return False
        return True

    start = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            created = list(pool.map(create, range(8)))
            assert created.count(True) == 1
            assert folder.read("sub/x") == str(created.index(True)).encode()
            folder.remove("sub/x")
