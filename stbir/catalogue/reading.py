"""Reads the bytes of referenced photos with prefetching, or a fault for each that cannot be read."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import fsspec

from stbir.catalogue.photo import PHOTO_UNREACHABLE, Photo, PhotoRef, escape_name
from stbir.data.validation import Fault
from stbir.storage.retry import ShortReadError, is_transient, with_retries

_NUM_THREADS = 16
_PREFETCH = 32  # encoded photos in memory, at most
S = TypeVar("S")
T = TypeVar("T")


def read_photos(refs: Iterable[PhotoRef]) -> Iterator[Photo | Fault]:
    """A photo or fault per reference, in order. Retries transient errors only."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        yield from _prefetch(pool, _read, refs)


def _prefetch(pool: ThreadPoolExecutor, function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """`pool.map` with at most _PREFETCH results ahead of the consumer."""
    futures: deque[Future[T]] = deque()
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) > _PREFETCH:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


def _read(ref: PhotoRef) -> Photo | Fault:
    if ref.uri is None or ref.problem is not None:
        reason, _, detail = (ref.problem or "photo missing").partition(": ")
        return Fault(ref.photo_id, reason, _file(ref), escape_name(detail) or None)
    try:
        data = with_retries(lambda: _read_bytes(ref))
    except Exception as error:  # any file system error concerns this photo only
        return _fault(ref, error)
    return Photo(ref.photo_id, ref.category, ref.metadata, data)


def _fault(ref: PhotoRef, error: Exception) -> Fault:
    reason = "photo cannot be opened"
    if is_transient(error):
        reason = PHOTO_UNREACHABLE
    elif isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        reason = "photo missing"
    detail = " ".join(str(error).split())[:200]
    return Fault(ref.photo_id, reason, _file(ref), f"{type(error).__name__}: {escape_name(detail)}")


def _file(ref: PhotoRef) -> str | None:
    return None if ref.uri is None else escape_name(ref.uri)


def _read_bytes(ref: PhotoRef) -> bytes:
    fs, path = fsspec.core.url_to_fs(ref.uri)
    start, size = ref.offset, ref.size
    end = start + size if start is not None and size is not None else None
    data = bytes(fs.cat_file(path, start=start, end=end))
    if size is not None and len(data) != size:
        raise ShortReadError(f"{len(data)} bytes came, {size} were listed")
    return data
