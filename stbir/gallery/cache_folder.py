"""The folder of a table version in a local disk cache, which several processes share.

A process holds a shared lock on `NAME.lock` while it uses the folder NAME. Only a folder that no process uses
is removed, under an exclusive lock. The kernel releases the locks of a dead process.
"""

import fcntl
import os
import re
import shutil
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART_SUFFIX = ".part"
_LOCK_SUFFIX = ".lock"
_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")  # of the table and of its version
_FREE_DISK_SHARE = 0.05  # which stays free


class CacheFolder:
    """A folder of a cache. In use from `acquire` on, as long as this object exists."""

    def __init__(self, cache: Path, name: str, max_bytes: int) -> None:
        """`name` consists of hashes of table and version. `max_bytes` is for all folders of the cache."""
        self.path, self._cache, self._max_bytes = cache / name, cache, max_bytes
        self._is_acquired = False

    def acquire(self) -> None:
        """Create the folder if it is missing, and protect it from removal by other processes."""
        if self._is_acquired:
            return
        self._cache.mkdir(parents=True, exist_ok=True)
        lock = _lock_file(self.path)
        while True:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
            # No process uses the folder, so its incomplete files are abandoned.
            if _try_lock(descriptor) and _is_same_file(descriptor, lock):
                for part in self.path.glob(f"*{PART_SUFFIX}"):
                    _remove(part)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_same_file(descriptor, lock):
                break
            os.close(descriptor)  # another process removed folder and lock meanwhile
        os.utime(descriptor)  # the time of the last use
        weakref.finalize(self, os.close, descriptor)
        self.path.mkdir(exist_ok=True)
        self._is_acquired = True

    @contextmanager
    def temporary_path(self) -> Iterator[Path]:
        """A path in the folder for an incomplete file or folder, which is removed unless it was renamed."""
        part = self.path / f"{uuid.uuid4().hex}{PART_SUFFIX}"
        try:
            yield part
        finally:
            _remove(part)

    def make_room(self, num_bytes: int) -> bool:
        """Whether `num_bytes` more fit. Removes unused versions of the same table, and then the least
        recently used ones of others until they fit."""
        if num_bytes > self._max_bytes:
            return False
        table = self.path.name.split("-")[0]
        others = [path for path in _folders(self._cache) if path.name != self.path.name]
        for path in others:
            is_old = path.name.split("-")[0] == table
            if is_old or not self._fits(num_bytes):
                _remove_unused(path)
        return self._fits(num_bytes)

    def _fits(self, num_bytes: int) -> bool:
        disk = shutil.disk_usage(self._cache)
        used = sum(_size_bytes(path) for path in _folders(self._cache))
        return used + num_bytes <= self._max_bytes and num_bytes <= disk.free - _FREE_DISK_SHARE * disk.total


def _folders(cache: Path) -> list[Path]:
    """The folders of versions, least recently used first."""
    locks = [path for path in cache.glob(f"*{_LOCK_SUFFIX}") if _NAME.fullmatch(path.stem)]
    times = {path: _mtime(path) for path in locks}
    return [path.with_suffix("") for path in sorted(locks, key=lambda path: times[path])]


def _remove_unused(path: Path) -> None:
    lock = _lock_file(path)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        if _try_lock(descriptor) and _is_same_file(descriptor, lock):
            _remove(path)
            lock.unlink()
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + _LOCK_SUFFIX)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process has removed it
        return 0


def _size_bytes(folder: Path) -> int:
    """The size of all files; other processes may remove some meanwhile."""
    sizes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                sizes += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return sizes
