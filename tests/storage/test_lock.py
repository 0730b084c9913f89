"""The writer lock, on a disk, in memory and on S3."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError

from stbir.errors import InputError
from stbir.storage import lock
from stbir.storage.folder import Folder
from stbir.storage.lock import LockHolder, artifact_lock, writer_lock
from stbir.storage.manifest import Manifest, write_manifest
from stbir.storage.process import Process
from tests.conftest import wait_until


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
    holder = {**json.loads(LockHolder(Process.current()).to_json()), **fields}
    folder.write("writer/00000007.json", json.dumps(holder).encode())


@contextmanager
def heartbeats(folder: Folder, **fields: object) -> Iterator[None]:
    """A lock holder that lives until the end of the block."""
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(0.1):
            write_lock_file(folder, **fields, beat=time.time_ns())

    write_lock_file(folder, **fields)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@contextmanager
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until the end of the block."""
    process = subprocess.Popen(["sleep", "100"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class FailingFolder(Folder):
    """A folder whose lock files cannot be written while `error` is set."""

    error: Exception | None = None

    def write(self, name: str, data: bytes) -> None:
        if self.error is not None and name.startswith("writer/"):
            raise self.error
        super().write(name, data)


class UnconditionalFolder(Folder):
    """A store that ignores conditional writes: each `create` succeeds."""

    def create(self, name: str, data: bytes) -> None:
        self.write(name, data)


def test_a_writer_is_refused_while_the_lock_holder_is_alive(folder: Folder) -> None:
    folder.write("x", b"content")
    with writer_lock(folder) as earlier:
        with pytest.raises(InputError, match=f"locked by process {os.getpid()} "), writer_lock(folder):
            pass
        earlier.check()
    with writer_lock(folder) as later:
        later.check()
        with pytest.raises(InputError, match="another writer has taken over"):
            earlier.check()
    with pytest.raises(InputError, match="the lock of this writer has been released"):
        later.check()


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


def test_a_writer_that_looked_before_another_began_does_not_acquire_a_new_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later writer sees no lock, and creates its own after the other has passed its first check."""
    create, others = lock._create, [writer_lock(folder)]
    earlier = []

    def create_late(folder: Folder, number: int) -> lock.Lock:
        if others:
            earlier.append(others.pop().__enter__())
        return create(folder, number)

    other = others[0]
    monkeypatch.setattr(lock, "_create", create_late)
    with pytest.raises(InputError, match="locked by process"), writer_lock(folder):
        pass
    earlier[0].check()
    other.__exit__(None, None, None)


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
    with (
        heartbeats(folder, host="another"),
        pytest.raises(InputError, match=r"locked by process .* on another;"),
        writer_lock(folder),
    ):
        pass


def test_an_empty_lock_file_belongs_to_a_writer_that_is_starting(folder: Folder) -> None:
    with heartbeats(folder, host="another"):
        folder.write("writer/00000007.json", b"")
        with pytest.raises(InputError, match=r"locked by process .* on another;"), writer_lock(folder):
            pass


def test_an_empty_lock_file_times_out(folder: Folder) -> None:
    folder.write("writer/00000007.json", b"")
    with writer_lock(folder) as acquired:
        acquired.check()


def test_an_exception_inside_releases_the_lock(folder: Folder) -> None:
    with pytest.raises(KeyError), writer_lock(folder):
        raise KeyError
    with writer_lock(folder):
        assert len(folder.list_files("writer/*")) == 1


def test_a_lock_that_was_taken_over_does_not_pass_its_check(folder: Folder) -> None:
    folder.write("x", b"content")
    with writer_lock(folder) as acquired:
        later = f"writer/{acquired.number + 1:08d}.json"
        folder.write(later, LockHolder(Process.current()).to_json())
        for _ in range(2):  # also after the new holder has removed the old file
            with pytest.raises(InputError, match=f"another writer has taken over, number .*; see {later}"):
                acquired.check()
            folder.remove(f"writer/{acquired.number:08d}.json")


def test_a_slow_writer_does_not_acquire_an_outdated_number(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def let_others_finish(folder: Folder, number: int) -> LockHolder:
        """Two other writers come and go; the second removes the number that is acquired next."""
        monkeypatch.undo()
        for _ in range(2):
            with writer_lock(folder):
                pass
        return LockHolder(Process.current(), free=True)

    write_lock_file(folder, free=True)
    monkeypatch.setattr(lock, "_wait_until_dead", let_others_finish)
    with pytest.raises(InputError, match="another writer has taken over, number 9"), writer_lock(folder):
        pass


def test_the_lock_of_a_running_process_is_not_taken_without_a_heartbeat(folder: Folder) -> None:
    """A stopped process, or one that waits for a disk, sends none."""
    with other_process() as process:
        os.kill(process.pid, signal.SIGSTOP)
        holder = LockHolder(replace(Process.current(), pid=process.pid, started=lock_time(process.pid)))
        folder.write("writer/00000007.json", holder.to_json())
        with pytest.raises(InputError, match=f"locked by process {process.pid} on"), writer_lock(folder):
            pass


def lock_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_the_lock_of_another_container_is_not_taken_within_its_heartbeat(folder: Folder) -> None:
    """Two containers of one host share host name and boot id, but neither sees the other's process ids."""
    process = subprocess.Popen(["true"])
    process.wait()  # no process has this id here
    with (
        heartbeats(folder, namespace="pid:[1]", process=process.pid),
        pytest.raises(InputError, match=f"locked by process {process.pid} "),
        writer_lock(folder),
    ):
        pass


def test_a_reused_process_id_does_not_hold_the_lock(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT_S", 1e6)
    write_lock_file(folder, started=1)  # by a process with the id of this one, before it
    with writer_lock(folder) as acquired:
        acquired.check()


def test_a_zombie_does_not_hold_the_lock(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT_S", 1e6)
    with other_process() as process:
        holder = LockHolder(replace(Process.current(), pid=process.pid, started=lock_time(process.pid)))
        folder.write("writer/00000007.json", holder.to_json())
        process.kill()  # not waited for: its parent keeps the entry
        wait_until(lambda: ") Z " in Path(f"/proc/{process.pid}/stat").read_text(), "the end of the process")
        with writer_lock(folder) as acquired:
            acquired.check()


def test_storage_that_cannot_exclude_a_second_writer_is_refused(folder: Folder) -> None:
    with (
        pytest.raises(InputError, match="ignores conditional writes"),
        writer_lock(UnconditionalFolder(folder.uri)),
    ):
        pass
    assert folder.list_files("**") == []


@pytest.mark.parametrize(
    "error", [InputError("unreachable"), OSError(5, "io"), BotoCoreError(), RuntimeError("event loop")]
)
def test_the_heartbeat_survives_every_error(tmp_path: Path, error: Exception) -> None:
    folder = FailingFolder(str(tmp_path))
    with writer_lock(folder) as acquired:
        folder.error = error
        time.sleep(0.3)  # several heartbeats fail
        folder.error = None
        before = folder.read(f"writer/{acquired.number:08d}.json")
        wait_until(
            lambda: folder.read(f"writer/{acquired.number:08d}.json") != before, "the next heartbeat", 20
        )
        acquired.check()


def test_a_lock_without_storage_does_not_pass_its_check(tmp_path: Path) -> None:
    folder = FailingFolder(str(tmp_path))
    with writer_lock(folder) as acquired:
        folder.error = InputError("unreachable")
        with pytest.raises(InputError, match="unreachable"):
            acquired.check()


def test_a_failed_release_does_not_replace_the_error_of_the_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = FailingFolder(str(tmp_path))
    with pytest.raises(KeyError, match="the job"), writer_lock(folder):
        fail_with_storage(folder)
    assert "the lock is not released ([Errno 5] io); the next writer waits" in caplog.text


def fail_with_storage(folder: FailingFolder) -> None:
    folder.error = OSError(5, "io")
    raise KeyError("the job")


def test_a_holder_that_recovers_during_a_takeover_keeps_its_lock(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat arrives after the last look at its file and before the new number is created."""
    create = Folder.create

    def recover(folder: Folder, name: str, data: bytes) -> None:
        if name.startswith("writer/"):
            write_lock_file(folder, host="another", beat=2)
        create(folder, name, data)

    write_lock_file(folder, host="another")
    monkeypatch.setattr(Folder, "create", recover)
    with pytest.raises(InputError, match="locked by"), writer_lock(folder):
        pass
    assert folder.list_files("writer/*") == ["writer/00000007.json"]


def test_a_process_that_was_sent_the_lock_can_check_it(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with writer_lock(folder) as acquired:
        sent = pickle.loads(pickle.dumps(acquired))
        sent.check()
        acquired.check()
    with pytest.raises(InputError, match="the lock of this writer has been released"):
        sent.check()
    with writer_lock(folder) as acquired:
        folder.write("writer/99999999999999999999.json", acquired.holder.to_json())
        with pytest.raises(InputError, match=r"another writer has taken over, number 9{20};"):
            pickle.loads(pickle.dumps(acquired)).check()


def test_only_the_holder_renews_the_lock(tmp_path: Path) -> None:
    """Another process could overwrite the release."""
    folder = Folder(str(tmp_path))
    with writer_lock(folder) as acquired:
        other = replace(acquired.holder.process, pid=1)
        sent = replace(acquired, holder=replace(acquired.holder, process=other))
        folder.write(f"writer/{sent.number:08d}.json", sent.holder.to_json())
        sent.check()
        assert folder.read(f"writer/{sent.number:08d}.json") == sent.holder.to_json()


def test_a_lock_is_not_removed_while_a_heartbeat_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The heartbeat would overwrite the lock of the next writer."""
    started, resumed = threading.Event(), threading.Event()

    def renew(self: lock.Lock) -> None:
        started.set()
        resumed.wait(20)

    monkeypatch.setattr(lock, "_JOIN_TIMEOUT_S", 0.1)
    folder = Folder(str(tmp_path / "new"))
    with writer_lock(folder):
        monkeypatch.setattr(lock.Lock, "renew", renew)
        assert started.wait(20)
    assert "the lock is not released (a heartbeat is still being written)" in caplog.text
    assert folder.list_files("writer/*") == ["writer/00000001.json"]
    resumed.set()


def test_a_job_that_wrote_nothing_leaves_no_trace(folder: Folder) -> None:
    with pytest.raises(KeyError), writer_lock(folder):
        raise KeyError
    assert not folder.exists()
    with writer_lock(folder):
        folder.write("x", b"")
    assert folder.exists()
    if folder.is_local:
        folder.child("existing/writer").write("x", b"")
        folder.child("existing/writer").remove("x")
        with writer_lock(folder.child("existing")):
            pass
        assert folder.child("existing").exists()


def test_lock_files_of_other_versions_are_read(folder: Folder) -> None:
    """A file with a field of the future, and one of version 0.2, which does not tell the PID namespace."""
    write_lock_file(folder, free=True, lease="a field of the future")
    with writer_lock(folder):
        pass
    holder = {"owner": "x", "host": "another", "process": 1, "beat": 3, "free": False}
    folder.write("writer/00000011.json", json.dumps(holder).encode())
    with writer_lock(folder) as acquired:  # after the timeout
        assert acquired.number == 12


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b"7", b'{"process": "x", "host": "y"}', b'{"process": 1, "host": 2}']
)
def test_a_damaged_lock_file_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    folder = Folder(str(tmp_path))
    folder.write("writer/00000007.json", content)
    with pytest.raises(InputError, match=r"writer/00000007.json: not a lock file; remove it"):
        writer_lock(folder).__enter__()


def test_a_lock_file_without_a_host_times_out(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with heartbeats(folder, host=""), pytest.raises(InputError, match="locked by"), writer_lock(folder):
        pass
    with writer_lock(folder) as acquired:
        acquired.check()


def test_the_lock_of_an_artifact_refuses_a_folder_of_another_kind(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    write_manifest(folder, Manifest("report", "sha256:0", {}), files={})
    with pytest.raises(InputError, match="holds a report, not shards"), artifact_lock(folder, "shards"):
        pass
    assert folder.list_files("**") == ["manifest.json"]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_the_lock_of_a_stopped_command_is_free_at_once(
    tmp_path: Path, signal_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT_S", 1e6)
    code = (
        "import sys, time\nfrom stbir.storage.folder import Folder\n"
        "from stbir.storage.lock import writer_lock\n"
        "with writer_lock(Folder(sys.argv[1])): print('held', flush=True); time.sleep(100)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.send_signal(signal_number)
    holder.communicate()
    with writer_lock(Folder(str(tmp_path))) as acquired:
        acquired.check()
