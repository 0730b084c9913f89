"""Writer lock of a folder, on any file system that can create a file exclusively.

The file `writer/<number>.json` with the highest number describes the lock holder. The holder renews it with a
heartbeat. A writer takes over from a dead holder by creating the next number, which only one of several can
do. A holder is dead if its process has ended, or, where that cannot be known, if its heartbeat has stopped. A
holder that was only slow sees the higher number in `check` before it commits. No clocks are compared.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

from pydantic import TypeAdapter

from stbir.errors import InputError, LockedError
from stbir.storage.access_check import check_exclusive_create
from stbir.storage.errors import STORAGE_ERRORS, storage_error
from stbir.storage.folder import Folder
from stbir.storage.manifest import Kind, refuse_other_kind
from stbir.storage.process import Process
from stbir.storage.retry import with_retries

log = logging.getLogger(__name__)
HEARTBEAT_S = 5.0
HEARTBEAT_TIMEOUT_S = 30.0  # a holder without a heartbeat for this long is dead
_JOIN_TIMEOUT_S = 5.0  # for the last heartbeat
_FOLDER, PARTS = "writer", "parts"


@dataclass(frozen=True)
class LockHolder:
    """Content of a lock file: a process, its latest heartbeat, and whether it has released the lock."""

    process: Process
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    beat: int = 0
    free: bool = False

    def to_json(self) -> bytes:
        """The lock file. Its field `process` is the process id."""
        process = asdict(self.process)
        return json.dumps({**asdict(self), "process": process.pop("pid"), **process}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "LockHolder":
        """Read a lock file. Raises ValueError, TypeError or KeyError if it is none."""
        fields = json.loads(data)
        process = {**fields, "pid": fields["process"]}
        return TypeAdapter(cls).validate_python({**fields, "process": process})


# A holder that has created its lock file but not yet written to it.
_EMPTY_HOLDER = LockHolder(Process("?", 0), owner="", beat=-1)


@dataclass(frozen=True)
class Lock:
    """The exclusive right to write to a folder, until it is released or taken over.

    A process to which the holder sends its lock may `check` it, too.
    """

    folder: Folder
    number: int
    holder: LockHolder

    def check(self) -> None:
        """Raises InputError if the lock was released or taken over. Call it before each commit."""
        current = _read(self.folder, self.number)
        is_held = current is not None and not current.free and current.owner == self.holder.owner
        # Only the process that releases the lock renews it: another one could undo the release.
        if is_held and self.holder.process == Process.current():
            # Before the listing, against a writer that takes over at this moment: `_acquire` creates its
            # number first and then looks for a heartbeat, so that one of both notices the other.
            self.renew()
        latest = _latest_number(self.folder)
        if latest > self.number:
            problem = f"another writer has taken over, number {latest}"
            raise InputError(f"{self.folder.uri}: {problem}; see {_file_name(latest)}")
        if not is_held or latest < self.number:
            raise InputError(f"{self.folder.uri}: the lock of this writer has been released; run it again")

    def renew(self) -> None:
        """Write a heartbeat."""
        self._write(replace(self.holder, beat=time.time_ns()))

    def release(self) -> None:
        """Let the next writer acquire the lock without waiting."""
        self._write(replace(self.holder, free=True))

    def remove(self) -> None:
        """Release the lock and remove its file, and the folder if nothing else is in it."""
        self.folder.remove(_file_name(self.number))
        self.folder.child(_FOLDER).remove_if_empty()
        self.folder.remove_if_empty()

    def _write(self, holder: LockHolder) -> None:
        with_retries(lambda: self.folder.write(_file_name(self.number), holder.to_json()))


@contextmanager
def artifact_lock(folder: Folder, kind: Kind) -> Iterator[Lock]:
    """Hold the writer lock of an artifact's folder. Raises InputError as `writer_lock`, also for its parts,
    and if the folder contains another kind of artifact."""
    refuse_other_kind(folder, kind)
    with writer_lock(folder) as lock:
        refuse_other_kind(folder, kind)  # an earlier writer may have finished meanwhile
        for part in folder.child(PARTS).list_entries():
            with writer_lock(folder.child(f"{PARTS}/{part}")):
                pass  # from now on, a dead writer of the part that comes back cannot commit
        yield lock


@contextmanager
def writer_lock(folder: Folder) -> Iterator[Lock]:
    """Hold the writer lock of a folder. Waits until a dead holder's heartbeat times out.

    Raises InputError if a live writer holds the lock, and if the storage cannot exclude a second writer.
    """
    is_new = not folder.exists()
    check_exclusive_create(folder)
    lock = _acquire(folder)
    stopped = threading.Event()
    heartbeat = threading.Thread(target=_renew_until, args=(lock, stopped), daemon=True)
    heartbeat.start()
    try:
        yield lock
    finally:
        stopped.set()
        heartbeat.join(_JOIN_TIMEOUT_S)
        _release(lock, is_new, heartbeat)


def _renew_until(lock: Lock, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT_S):
        try:
            lock.renew()
        except Exception as error:  # any error of a storage library; `check` runs before a commit
            log.warning("%s: no heartbeat, trying again (%s)", lock.folder.uri, error)


def _release(lock: Lock, is_new: bool, heartbeat: threading.Thread) -> None:
    """Release the lock. A failure must not replace the job's own error."""
    try:
        if heartbeat.is_alive():  # it would undo the release, or overwrite the lock of the next writer
            raise TimeoutError("a heartbeat is still being written")
        # Numbers start again only if no holder was taken over: that one may still renew its number.
        if is_new and lock.number == 1 and lock.folder.list_entries() == [_FOLDER]:
            lock.remove()
        else:
            lock.release()
    except Exception as error:
        log.warning("%s: the lock is not released (%s); the next writer waits", lock.folder.uri, error)


def _acquire(folder: Folder) -> Lock:
    number, dead = _find_dead(folder)
    lock = _create(folder, number + 1)
    if dead is not None and (current := _read(folder, number)) not in (dead, None):
        folder.remove(_file_name(lock.number))
        raise _locked_error(folder, current or dead)
    # During the wait, other writers may have finished and removed the number that was then created here.
    lock.check()
    _remove_up_to(folder, number)
    return lock


def _find_dead(folder: Folder) -> tuple[int, LockHolder | None]:
    """The latest number, 0 for none, and its dead holder. Raises InputError as `_wait_until_dead`."""
    while number := _latest_number(folder):
        if (dead := _wait_until_dead(folder, number)) is not None:
            return number, dead
    return 0, None


def _create(folder: Folder, number: int) -> Lock:
    lock = Lock(folder, number, LockHolder(Process.current()))
    try:
        with_retries(lambda: folder.create(_file_name(number), lock.holder.to_json()))
    except STORAGE_ERRORS as error:
        # The file may be ours: a retry fails if the response to the first request was lost.
        current = _read(folder, number)
        if current is None:
            raise storage_error(folder.uri, error) from error
        if current.owner != lock.holder.owner:
            raise _locked_error(folder, current) from error
    return lock


def _wait_until_dead(folder: Folder, number: int) -> LockHolder | None:
    """The last content of the holder's file; None if it is gone. Raises InputError if the holder lives."""
    before = current = _read(folder, number)
    deadline = time.monotonic() + HEARTBEAT_TIMEOUT_S
    while current is not None and not current.free and (runs := current.process.is_running()) is not False:
        if runs or current != before:
            raise _locked_error(folder, current)
        if time.monotonic() >= deadline:
            break
        time.sleep(min(1.0, HEARTBEAT_S))
        current = _read(folder, number)
    return current


def _locked_error(folder: Folder, holder: LockHolder) -> LockedError:
    process = f"process {holder.process.pid} on {holder.process.host.partition(' ')[0]}"
    owner = "another writer" if holder == _EMPTY_HOLDER else process
    return LockedError(f"{folder.uri}: locked by {owner}; wait until it is done, or stop it")


def _latest_number(folder: Folder) -> int:
    return max(map(_number, _lock_files(folder)), default=0)


def _number(name: str) -> int:
    """The number of a lock file; 0 for another file."""
    number = name.removeprefix(f"{_FOLDER}/").removesuffix(".json")
    return int(number) if number.isdecimal() else 0


def _lock_files(folder: Folder) -> list[str]:
    return with_retries(lambda: folder.list_files(f"{_FOLDER}/*.json"))


def _remove_up_to(folder: Folder, number: int) -> None:
    for name in _lock_files(folder):
        if 0 < _number(name) <= number:
            folder.remove(name)


def _read(folder: Folder, number: int) -> LockHolder | None:
    name = _file_name(number)
    try:
        data = with_retries(lambda: folder.read(name))
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    try:
        return LockHolder.from_json(data) if data else _EMPTY_HOLDER
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder.uri}/{name}: not a lock file; remove it if no job writes here") from error


def _file_name(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"
