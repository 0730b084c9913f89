"""The writer lock, on a disk, in memory and on S3."""

import json
import os
import subprocess
import threading
import uuid
from dataclasses import asdict
from pathlib import Path

import pytest

from stbir.errors import InputError
from stbir.storage import lock
from stbir.storage.folder import Folder
from stbir.storage.lock import LockHolder, writer_lock


@pytest.fixture(params=["disk", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    name = uuid.uuid4().hex
    if request.param == "s3":
        return Folder(f"{request.getfixturevalue('s3')}/{name}")
    return Folder(str(tmp_path / name) if request.param == "disk" else f"memory://{name}")


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT_S", 1.0)


def write_lock_file(folder: Folder, **fields: object) -> None:
    """Write the lock file of a writer that was killed."""
    holder = {**asdict(LockHolder()), **fields}
    folder.write("writer/00000007.json", json.dumps(holder).encode())


def test_a_writer_is_refused_while_the_lock_holder_is_alive(folder: Folder) -> None:
    with writer_lock(folder) as earlier:
        with (
            pytest.raises(InputError, match=f"locked by process {os.getpid()} "),
            writer_lock(folder),
        ):
            pass
        earlier.check()
    with writer_lock(folder) as later:
        later.check()
        with pytest.raises(InputError, match="another writer has taken over"):
            earlier.check()


def test_one_of_several_concurrent_writers_wins(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT_S", 30.0)  # on a busy machine a heartbeat may take a second
    winners, losers = [], []
    start, stop = threading.Barrier(5), threading.Event()

    def compete() -> None:
        start.wait()
        try:
            with writer_lock(folder):
                winners.append(1)
                stop.wait(20)
        except InputError:
            losers.append(1)
            if len(losers) == 4:
                stop.set()

    threads = [threading.Thread(target=compete) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(winners), len(losers)) == (1, 4)


def test_the_lock_of_a_dead_process_on_this_machine_is_free(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT_S", 1e6)
    process = subprocess.Popen(["true"])
    process.wait()
    write_lock_file(folder, process=process.pid)
    with writer_lock(folder) as acquired:
        acquired.check()


def test_a_holder_times_out_if_its_heartbeat_stops(folder: Folder) -> None:
    write_lock_file(folder, host="another machine")
    with writer_lock(folder) as acquired:
        acquired.check()


def test_a_heartbeat_of_another_machine_is_respected(folder: Folder) -> None:
    write_lock_file(folder, host="another", beat=1)
    heartbeat = threading.Timer(0.3, write_lock_file, (folder,), {"host": "another", "beat": 2, "owner": "x"})
    heartbeat.start()
    with pytest.raises(InputError, match=r"locked by process .* on another;"), writer_lock(folder):
        pass
    heartbeat.join()


def test_an_empty_lock_file_belongs_to_a_writer_that_is_starting(folder: Folder) -> None:
    folder.write("writer/00000007.json", b"")
    delayed_write = threading.Timer(0.3, write_lock_file, (folder,), {"host": "another"})
    delayed_write.start()
    with pytest.raises(InputError, match=r"locked by process .* on another;"), writer_lock(folder):
        pass
    delayed_write.join()


def test_an_empty_lock_file_times_out(folder: Folder) -> None:
    folder.write("writer/00000007.json", b"")
    with writer_lock(folder) as acquired:
        acquired.check()


def test_an_exception_inside_releases_the_lock(folder: Folder) -> None:
    with pytest.raises(KeyError), writer_lock(folder):
        raise KeyError
    with writer_lock(folder):
        assert len(folder.list_files("writer/*")) == 1


def test_a_slow_writer_does_not_acquire_an_outdated_number(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def let_others_finish(folder: Folder, number: int) -> None:
        """Two other writers come and go; the second removes the number that is acquired next."""
        monkeypatch.undo()
        for _ in range(2):
            with writer_lock(folder):
                pass

    write_lock_file(folder, free=True)
    monkeypatch.setattr(lock, "_wait_until_dead", let_others_finish)
    with pytest.raises(InputError, match="another writer has taken over, number 9"), writer_lock(folder):
        pass
