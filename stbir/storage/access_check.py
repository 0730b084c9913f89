"""Whether a place can be written to, read, listed and cleared, before hours of work need it."""

import contextlib
import os
import time
import uuid

from stbir.errors import InputError
from stbir.storage.folder import Folder

_CONTENT = b"stbir was here"


def probe(folder: Folder) -> float:
    """Write, read, list and delete a small file, and leave no trace.

    Returns by how many seconds the place's clock is ahead of this one's. Raises InputError that says which of
    the four fails.
    """
    there, name = folder.exists(), f"probe-{uuid.uuid4().hex}"
    folder.write(name, _CONTENT)
    now = time.time()
    if folder.read(name) != _CONTENT:
        raise _refusal(folder, "what is written does not come back when read")
    if name not in folder.names("probe-*"):
        raise _refusal(folder, "what is written is not listed")
    ahead = folder.modified(name) - now
    folder.remove(name)
    if folder.exists(name):
        raise _refusal(folder, "what is deleted stays")
    if folder.local and not there:
        with contextlib.suppress(OSError):  # not empty: another job has begun there meanwhile
            os.rmdir(folder.path)
    return ahead


def _refusal(folder: Folder, what: str) -> InputError:
    return InputError(f"{folder.uri}: {what}; check its rights (list, read, write, delete) and its server")
