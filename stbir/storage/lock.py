"""Writer lock of a folder, on any file system that can create a file exclusively.

The file `writer/<number>.json` with the highest number describes the lock holder. The holder renews it with a
heartbeat. A writer takes over from a dead holder by creating the next number, which only one of several can
do. A holder that was only slow sees the higher number in `check` before it commits. Clocks of different
machines are never compared.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

from stbir.errors import InputError
from stbir.storage.errors import STORAGE_ERRORS
from stbir.storage.folder import Folder
from stbir.storage.retry import with_retries

HEARTBEAT_S = 5.0
HEARTBEAT_TIMEOUT_S = 30.0  # a holder without a heartbeat for this long is dead
_FOLDER = "writer"


@dataclass(frozen=True)
class LockHolder:
    """Content of a lock file. `process` is a process id on `host`; `free` marks a released lock."""

    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=lambda: _host())
    process: int = field(default_factory=os.getpid)
    beat: int = 0
    free: bool = False

    def is_dead(self) -> bool:
        """Whether the lock is released, or its process on this host has ended."""
        return self.free or (self.host == _host() and not _is_running(self.process))


# A holder that has created its lock file but not yet written to it.
_EMPTY_HOLDER = LockHolder(owner="", host="?", process=0, beat=-1)


class Lock:
    """The exclusive right to write to a folder, until it is released or taken over."""

    def __init__(self, folder: Folder, number: int, holder: LockHolder) -> None:
        self._folder, self._number, self._holder = folder, number, holder

    def check(self) -> None:
        """Raises InputError if another writer has taken over. Call it before each commit."""
        latest = _latest_number(self._folder)
        if latest != self._number:
            problem = f"another writer has taken over, number {latest}"
            raise InputError(f"{self._folder.uri}: {problem}; see {_file_name(latest)}")

    def renew(self) -> None:
        """Write a heartbeat."""
        self._holder = replace(self._holder, beat=self._holder.beat + 1)
        self._write()

    def release(self) -> None:
        """Let the next writer acquire the lock without waiting."""
        self._holder = replace(self._holder, free=True)
        self._write()

    def _write(self) -> None:
        self._folder.write(_file_name(self._number), json.dumps(asdict(self._holder)).encode())


@contextmanager
def writer_lock(folder: Folder) -> Iterator[Lock]:
    """Hold the writer lock of a folder. Waits until a dead holder's heartbeat times out.

    Raises InputError if a live writer holds the lock.
    """
    number = _latest_number(folder)
    if number:
        _wait_until_dead(folder, number)
    lock = _acquire(folder, number + 1)
    # During the wait, other writers may have finished and removed the number that was then created here.
    lock.check()
    _remove_up_to(folder, number)
    stopped = threading.Event()
    heartbeat = threading.Thread(target=_renew_until, args=(lock, stopped), daemon=True)
    heartbeat.start()
    try:
        yield lock
    finally:
        stopped.set()
        heartbeat.join()
        lock.release()


def _renew_until(lock: Lock, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT_S):
        try:
            lock.renew()
        except InputError:  # unreachable for now; `check` runs before anything is committed
            continue


def _acquire(folder: Folder, number: int) -> Lock:
    holder = LockHolder()
    data = json.dumps(asdict(holder)).encode()
    try:
        with_retries(lambda: folder.create(_file_name(number), data))
    except STORAGE_ERRORS as error:
        # The file may be ours: a retry fails if the response to the first request was lost.
        current = _read(folder, number)
        if current is None:
            remedy = "check that the path or bucket exists, and the AWS_* variables"
            raise InputError(f"{folder.uri}: cannot be written to ({error}); {remedy}") from error
        if current.owner != holder.owner:
            raise _locked_error(folder, current) from error
    return Lock(folder, number, holder)


def _wait_until_dead(folder: Folder, number: int) -> None:
    """Raises InputError if the holder's file changes meanwhile: it is alive."""
    before = current = _read(folder, number)
    deadline = time.monotonic() + HEARTBEAT_TIMEOUT_S
    while current is not None and not current.is_dead() and time.monotonic() < deadline:
        if current != before:
            raise _locked_error(folder, current)
        time.sleep(min(1.0, HEARTBEAT_S))
        current = _read(folder, number)


def _locked_error(folder: Folder, holder: LockHolder) -> InputError:
    process = f"process {holder.process} on {holder.host.split()[0]}"
    owner = "another writer" if holder == _EMPTY_HOLDER else process
    return InputError(f"{folder.uri}: locked by {owner}; wait until it is done, or stop it")


def _latest_number(folder: Folder) -> int:
    numbers = [name.removeprefix(f"{_FOLDER}/").removesuffix(".json") for name in _lock_files(folder)]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _lock_files(folder: Folder) -> list[str]:
    return with_retries(lambda: folder.list_files(f"{_FOLDER}/*.json"))


def _remove_up_to(folder: Folder, number: int) -> None:
    for name in _lock_files(folder):
        if name <= _file_name(number):
            folder.remove(name)


def _read(folder: Folder, number: int) -> LockHolder | None:
    try:
        data = with_retries(lambda: folder.read(_file_name(number)))
        return LockHolder(**json.loads(data)) if data else _EMPTY_HOLDER
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _file_name(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"


def _host() -> str:
    """Host name and boot id: a process id is unique only within one boot of a machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot_id = file.read().strip()
    except OSError:
        boot_id = ""
    return f"{socket.gethostname()} {boot_id}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError) as error:
        return isinstance(error, PermissionError)  # the process exists, under another user
    return True
