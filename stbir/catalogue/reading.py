"""Reads the bytes of referenced photos with prefetching, or a fault for each that cannot be read."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from stbir.catalogue.photo import (
    NAME_NOT_UTF8,
    NOT_AN_IMAGE,
    PHOTO_UNREACHABLE,
    Photo,
    PhotoRef,
    escape_name,
)
from stbir.data.sources.entry import name_suffix
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.images import HEAD_BYTES, is_image
from stbir.storage.errors import MISSING_FILE_ERRORS
from stbir.storage.fetch import DEFAULT_SCHEMES, MAX_BYTES, TIMEOUT_S, fetch
from stbir.storage.retry import ShortReadError, is_transient, with_retries

_NUM_THREADS = 16
_PREFETCH = 32  # encoded photos in memory, at most
_MIN_TIMEOUT_S = 0.1  # fsspec takes 0 as no limit
S = TypeVar("S")
T = TypeVar("T")


def read_photos(refs: Iterable[PhotoRef], schemes: Set[str] = DEFAULT_SCHEMES) -> Iterator[Photo | Fault]:
    """A photo or fault per reference, in order. Retries transient errors only.

    `schemes` are those to which an HTTP server may redirect.
    """
    yield from map_ahead(partial(_read, schemes=schemes), refs, _NUM_THREADS, _PREFETCH)


def map_ahead(
    function: Callable[[S], T], items: Iterable[S], num_threads: int, num_ahead: int
) -> Iterator[T]:
    """Map a function in threads, in order, with at most `num_ahead` results ahead of the consumer."""
    with ThreadPoolExecutor(num_threads) as pool:
        futures: deque[Future[T]] = deque()
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) > num_ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()


def _read(ref: PhotoRef, schemes: Set[str]) -> Photo | Fault:
    deadline = time.monotonic() + TIMEOUT_S
    try:
        if not _is_photo(ref, schemes, deadline):
            return Fault(ref.photo_id, NOT_AN_IMAGE, _file(ref), name_suffix(ref.photo_id))
        if ref.uri is None or ref.problem is not None:
            reason, _, detail = (ref.problem or "photo missing").partition(": ")
            return Fault(ref.photo_id, reason, _file(ref), escape_name(detail) or None)
        data = with_retries(lambda: _read_bytes(ref, schemes, deadline), TIMEOUT_S)
    except Exception as error:  # any file system error concerns this photo only
        return _fault(ref, error)
    return Photo(ref.photo_id, ref.category, ref.metadata, data)


def _is_photo(ref: PhotoRef, schemes: Set[str], deadline: float) -> bool:
    """Whether a file has the suffix of a photo, or else the first bytes of one."""
    if not ref.check_content or ref.problem not in (None, NAME_NOT_UTF8):
        return True
    return is_image(with_retries(lambda: _fetch(ref, 0, HEAD_BYTES, schemes, deadline), TIMEOUT_S))


def _fault(ref: PhotoRef, error: Exception) -> Fault:
    reason = "photo cannot be opened"
    if is_transient(error):
        reason = PHOTO_UNREACHABLE
    elif isinstance(error, MISSING_FILE_ERRORS):
        reason = "photo missing"
    name = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    detail = name + " ".join(str(error).split())[:200]
    return Fault(ref.photo_id, reason, _file(ref), escape_name(detail))


def _file(ref: PhotoRef) -> str | None:
    return None if ref.uri is None else escape_name(ref.uri)


def _read_bytes(ref: PhotoRef, schemes: Set[str], deadline: float) -> bytes:
    start, size = ref.offset or 0, MAX_BYTES if ref.size is None else ref.size
    end = start + size + (ref.offset is None)  # one more byte shows that a file is larger
    data = _fetch(ref, start, end, schemes, deadline)
    if ref.size is None and len(data) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES // 2**20} MiB")
    if ref.size is not None and len(data) != ref.size:
        raise ShortReadError(f"{len(data)} bytes came, {ref.size} were listed")
    return data


def _fetch(ref: PhotoRef, start: int, end: int, schemes: Set[str], deadline: float) -> bytes:
    if ref.size == 0:
        return b""  # object stores refuse an empty range
    return fetch(ref.uri or "", start, end, schemes, max(deadline - time.monotonic(), _MIN_TIMEOUT_S))
