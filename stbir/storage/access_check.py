"""Check that a folder can be written, read, listed and cleared, before a long job depends on it."""

import contextlib
import os
import time
import uuid

from stbir.errors import InputError
from stbir.storage.folder import Folder

_CONTENT = b"stbir access check"


def check_writable(folder: Folder) -> None:
    """Raises InputError for a folder in which a file cannot be written and deleted."""
    folder.write(".probe", b"")
    folder.remove(".probe")


def check_access(folder: Folder) -> float:
    """Write, read, list and delete a small file. Leaves no trace.

    Returns the seconds by which the storage's clock is ahead of the local clock. Raises InputError that
    names the operation that fails.
    """
    existed, name = folder.exists(), f"probe-{uuid.uuid4().hex}"
    folder.write(name, _CONTENT)
    now = time.time()
    if folder.read(name) != _CONTENT:
        raise _access_error(folder, "a file reads back with other content than was written")
    if name not in folder.list_files("probe-*"):
        raise _access_error(folder, "a written file is not listed")
    clock_offset_s = folder.modified_time(name) - now
    folder.remove(name)
    if folder.exists(name):
        raise _access_error(folder, "a deleted file still exists")
    if folder.is_local and not existed:
        with contextlib.suppress(OSError):  # not empty: another job has written to it meanwhile
            os.rmdir(folder.path)
    return clock_offset_s


def _access_error(folder: Folder, problem: str) -> InputError:
    return InputError(f"{folder.uri}: {problem}; check permissions (list, read, write, delete) and server")
