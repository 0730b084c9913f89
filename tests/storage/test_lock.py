"""One writer at a time, on a disk, in memory and on S3."""

import json
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import asdict
from pathlib import Path

import pytest

from stbir.errors import InputError
from stbir.storage import lock
from stbir.storage.folder import Folder
from stbir.storage.lock import Holder, only_writer


@pytest.fixture(params=["disk", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    name = uuid.uuid4().hex
    if request.param == "s3":
        return Folder(f"{request.getfixturevalue('s3')}/{name}")
    return Folder(str(tmp_path / name) if request.param == "disk" else f"memory://{name}")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lock, "DEAD_SECONDS", 1.0)


def left_behind(folder: Folder, **fields: object) -> None:
    """What a writer that was killed leaves."""
    holder = {**asdict(Holder()), **fields}
    folder.write("writer/00000007.json", json.dumps(holder).encode())


def test_a_second_writer_is_refused_while_the_first_lives(folder: Folder) -> None:
    with only_writer(folder) as first:
        with (
            pytest.raises(InputError, match=f"process {os.getpid()} .*writes to it now"),
            only_writer(folder),
        ):
            pass
        first.check()
    with only_writer(folder) as second:
        second.check()
        with pytest.raises(InputError, match="another writer has taken over"):
            first.check()


def test_one_of_many_at_once_wins(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "DEAD_SECONDS", 30.0)  # on a busy machine a beat may take a second
    won, lost = [], []
    start, over = threading.Barrier(5), threading.Event()

    def compete() -> None:
        start.wait()
        try:
            with only_writer(folder):
                won.append(1)
                over.wait(20)
        except InputError:
            lost.append(1)
            if len(lost) == 4:
                over.set()

    threads = [threading.Thread(target=compete) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 4)


def test_a_dead_process_of_this_machine_keeps_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "DEAD_SECONDS", 1e6)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_behind(folder, process=dead.pid)
    with only_writer(folder) as mine:
        mine.check()


def test_a_beat_that_stands_still_has_stopped(folder: Folder) -> None:
    left_behind(folder, host="another machine")
    with only_writer(folder) as mine:
        mine.check()


def test_a_beat_of_another_machine_is_respected(folder: Folder) -> None:
    left_behind(folder, host="another", beat=1)
    beating = threading.Timer(0.3, left_behind, (folder,), {"host": "another", "beat": 2, "owner": "x"})
    beating.start()
    with pytest.raises(InputError, match="on another writes to it now"), only_writer(folder):
        pass
    beating.join()


def test_a_file_still_empty_is_a_writer_that_comes(folder: Folder) -> None:
    folder.write("writer/00000007.json", b"")
    coming = threading.Timer(0.3, left_behind, (folder,), {"host": "another"})
    coming.start()
    with pytest.raises(InputError, match="on another writes to it now"), only_writer(folder):
        pass
    coming.join()


def test_a_writer_that_died_before_its_first_word_keeps_nothing(folder: Folder) -> None:
    folder.write("writer/00000007.json", b"")
    with only_writer(folder) as mine:
        mine.check()


def test_an_error_inside_gives_it_back(folder: Folder) -> None:
    with pytest.raises(KeyError), only_writer(folder):
        raise KeyError
    with only_writer(folder):
        assert len(folder.names("writer/*")) == 1


def test_who_was_slow_does_not_take_a_number_that_is_over(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(folder: Folder, number: int) -> None:
        """Two others come and go; the second clears away the number that comes next here."""
        monkeypatch.undo()
        for _ in range(2):
            with only_writer(folder):
                pass

    left_behind(folder, free=True)
    monkeypatch.setattr(lock, "_wait_for_end", slow)
    with pytest.raises(InputError, match="another writer has taken over, number 9"), only_writer(folder):
        pass
