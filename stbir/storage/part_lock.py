"""Locks for several writers of one artifact, each of which writes a part."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from stbir.errors import LockedError
from stbir.storage.folder import Folder
from stbir.storage.lock import HEARTBEAT_TIMEOUT_S, PARTS, Lock, writer_lock
from stbir.storage.manifest import Kind, refuse_other_kind

_RETRY_S = 0.5


@contextmanager
def part_lock(folder: Folder, kind: Kind, part: str) -> Iterator[Lock]:
    """Hold the lock of a part, beside writers of other parts; `artifact_lock` excludes them all.

    Raises InputError as `artifact_lock`.
    """
    refuse_other_kind(folder, kind)
    with writer_lock(folder.child(f"{PARTS}/{part}")) as lock:
        yield lock


@contextmanager
def brief_lock(folder: Folder) -> Iterator[Lock]:
    """Hold the lock of the artifact for a step that writers of parts take in turn. Waits for it up to
    HEARTBEAT_TIMEOUT_S, then raises LockedError."""
    deadline = time.monotonic() + HEARTBEAT_TIMEOUT_S
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(writer_lock(folder))
                break
            except LockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_S)
        yield lock
