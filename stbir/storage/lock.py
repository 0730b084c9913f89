"""One writer of a folder at a time, on any file system that can refuse to replace a file.

The holder's file, `writer/<number>.json`, has the highest number and a beat that goes on. To take over from a
dead writer means to create the next number, which one of several succeeds in; and who was not dead after all
sees the higher number before it commits. Nobody's clock is compared with anybody's.
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
from stbir.storage.folder import UNREACHABLE, Folder
from stbir.storage.retry import patiently

BEAT_SECONDS = 5.0
# A beat that stood still for so long has stopped.
DEAD_SECONDS = 30.0
_FOLDER = "writer"


@dataclass(frozen=True)
class Holder:
    """Who holds the lock, as its file says. `process` is known by host, start of the machine, and id."""

    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=lambda: f"{socket.gethostname()} {_boot()}")
    process: int = field(default_factory=os.getpid)
    beat: int = 0
    free: bool = False

    def gone(self) -> bool:
        """Whether it says so itself, or its process is known to have ended."""
        return self.free or (self.host == f"{socket.gethostname()} {_boot()}" and not _runs(self.process))


# Who has created its file and written nothing to it yet.
_COMING = Holder(owner="", host="?", process=0, beat=-1)


class Lock:
    """The right to write to a folder, held until it is lost or given back."""

    def __init__(self, folder: Folder, number: int, holder: Holder) -> None:
        self._folder, self._number, self._holder = folder, number, holder

    def check(self) -> None:
        """Raises InputError where another writer has taken over meanwhile: nothing is to be written then."""
        newest = _newest(self._folder)
        if newest != self._number:
            raise InputError(
                f"{self._folder.uri}: another writer has taken over, number {newest}; look there"
            )

    def beat(self) -> None:
        """Show that this writer lives."""
        self._holder = replace(self._holder, beat=self._holder.beat + 1)
        self._write()

    def give_back(self) -> None:
        """Let the next writer in at once."""
        self._holder = replace(self._holder, free=True)
        self._write()

    def _write(self) -> None:
        self._folder.write(_name(self._number), json.dumps(asdict(self._holder)).encode())


@contextmanager
def only_writer(folder: Folder) -> Iterator[Lock]:
    """Hold the lock of a folder. A dead writer's is waited out; InputError where a living one has it."""
    number = _newest(folder)
    if number:
        _wait_for_end(folder, number)
    lock = _take(folder, number + 1)
    # While this one waited, others may have come and gone, and cleared away the number that it then created.
    lock.check()
    _clear(folder, number)
    over = threading.Event()
    beating = threading.Thread(target=_beat_until, args=(lock, over), daemon=True)
    beating.start()
    try:
        yield lock
    finally:
        over.set()
        beating.join()
        lock.give_back()


def _beat_until(lock: Lock, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        try:
            lock.beat()
        except InputError:  # out of reach for now; `check` tells, before anything is written
            continue


def _take(folder: Folder, number: int) -> Lock:
    holder = Holder()
    data = json.dumps(asdict(holder)).encode()
    try:
        patiently(lambda: folder.create(_name(number), data))
    except UNREACHABLE as error:
        # That it is there already may be our own doing, where the answer to a request got lost.
        there = _read(folder, number)
        if there is None:
            reason = (
                f"cannot be written to ({error}); check that the path or bucket exists, and AWS_* variables"
            )
            raise InputError(f"{folder.uri}: {reason}") from error
        if there.owner != holder.owner:
            raise InputError(_taken(folder, there)) from error
    return Lock(folder, number, holder)


def _wait_for_end(folder: Folder, number: int) -> None:
    first = _read(folder, number)
    deadline = time.monotonic() + DEAD_SECONDS
    now = first
    while now is not None and not now.gone() and time.monotonic() < deadline:
        if now != first:
            raise InputError(_taken(folder, now))
        time.sleep(min(1.0, BEAT_SECONDS))
        now = _read(folder, number)


def _taken(folder: Folder, holder: Holder) -> str:
    who = "another writer" if holder == _COMING else f"process {holder.process} on {holder.host.split()[0]}"
    return f"{folder.uri}: {who} writes to it now; wait until it is done, or stop it"


def _newest(folder: Folder) -> int:
    numbers = [name.removeprefix(f"{_FOLDER}/").removesuffix(".json") for name in _names(folder)]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _names(folder: Folder) -> list[str]:
    return patiently(lambda: folder.names(f"{_FOLDER}/*.json"))


def _clear(folder: Folder, number: int) -> None:
    """Remove the files up to a number."""
    for name in _names(folder):
        if name <= _name(number):
            folder.remove(name)


def _read(folder: Folder, number: int) -> Holder | None:
    try:
        data = patiently(lambda: folder.read(_name(number)))
        return Holder(**json.loads(data)) if data else _COMING
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _name(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"


def _boot() -> str:
    """What the machine's present run is called, where it says; a process id means nothing beyond it."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
