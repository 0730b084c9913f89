"""Check that a folder can be written, read, listed and cleared, before a long job depends on it."""

import time
import uuid

from stbir.errors import InputError
from stbir.storage.errors import STORAGE_ERRORS, storage_error
from stbir.storage.folder import Folder
from stbir.storage.retry import is_transient, with_retries

_CONTENT = b"stbir access check"


def check_exclusive_create(folder: Folder) -> None:
    """Raises InputError if a file can be created twice: two writers could then hold the folder's lock."""
    name = f"probe-{uuid.uuid4().hex}"
    with_retries(lambda: folder.write(name, _CONTENT))
    try:
        with_retries(lambda: folder.create(name, b"created twice"))
    except STORAGE_ERRORS as error:
        if is_transient(error):
            raise storage_error(folder.uri, error) from error
    else:
        problem = (
            "the storage ignores conditional writes (If-None-Match), so it cannot exclude a second writer"
        )
        raise InputError(f"{folder.uri}: {problem}; use storage that supports them")
    finally:
        folder.remove(name)


def check_access(folder: Folder) -> float:
    """Write, read, list and delete a small file, and check that a file is created only once. Leaves no trace.

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
    check_exclusive_create(folder)
    if not existed:
        folder.remove_if_empty()
    return clock_offset_s


def _access_error(folder: Folder, problem: str) -> InputError:
    return InputError(f"{folder.uri}: {problem}; check permissions (list, read, write, delete) and server")
