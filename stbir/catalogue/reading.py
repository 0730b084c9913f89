"""The bytes of listed photos, some ahead of those asked for; what cannot be read has a reason."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import fsspec

from stbir.catalogue.photo import OUT_OF_REACH, Listed, Photo
from stbir.data.validation import Fault
from stbir.storage.retry import ShortRead, patiently, transient

_READERS = 16
_AHEAD = 32  # photos held encoded, at most
S = TypeVar("S")
T = TypeVar("T")


def read_listed(listed: Iterable[Listed]) -> Iterator[Photo | Fault]:
    """Each photo's bytes or fault, in order. Transient errors are tried again, permanent ones not."""
    with ThreadPoolExecutor(_READERS) as pool:
        yield from _ahead(pool, _read, listed)


def _ahead(pool: ThreadPoolExecutor, work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(listed: Listed) -> Photo | Fault:
    if listed.uri is None or listed.problem is not None:
        reason, _, detail = (listed.problem or "photo missing").partition(": ")
        return Fault(listed.photo_id, reason, listed.uri, detail or None)
    try:
        data = patiently(lambda: _bytes(listed))
    except Exception as error:  # whatever a file system raises: it is this photo's, and has a reason
        return _fault(listed, error)
    return Photo(listed.photo_id, listed.category, listed.facts, data)


def _fault(listed: Listed, error: Exception) -> Fault:
    reason = "photo cannot be opened"
    if transient(error):
        reason = OUT_OF_REACH
    elif isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        reason = "photo missing"
    detail = " ".join(str(error).split())[:200]
    return Fault(listed.photo_id, reason, listed.uri, f"{type(error).__name__}: {detail}")


def _bytes(listed: Listed) -> bytes:
    fs, path = fsspec.core.url_to_fs(listed.uri)
    start, size = listed.offset, listed.size
    end = start + size if start is not None and size is not None else None
    data = bytes(fs.cat_file(path, start=start, end=end))
    if size is not None and len(data) != size:
        raise ShortRead(f"{len(data)} bytes came, {size} were listed")
    return data
