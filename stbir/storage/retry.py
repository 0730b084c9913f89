"""Retries for transient storage and network errors."""

import errno
import math
from collections.abc import Callable
from typing import TypeVar

import aiohttp
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from stbir.storage.errors import MISSING_FILE_ERRORS, STORAGE_ERRORS

MAX_ATTEMPTS = 5
INITIAL_WAIT_S = 0.25  # doubled after each attempt
_PERMANENT = (*MISSING_FILE_ERRORS, FileExistsError, PermissionError)
# The first line: s3fs translates permanent rejections by the object store to these.
_PERMANENT_ERRNO = (
    *(errno.EINVAL, errno.EPERM, errno.ENAMETOOLONG, errno.ENOSYS),
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG),  # of a disk: no retry frees space
)
_TOO_MANY_REQUESTS, _SERVER_ERROR = 429, 500
T = TypeVar("T")


class ShortReadError(OSError):
    """The number of bytes received differs from the announced size."""


def is_transient(error: BaseException | None) -> bool:
    """Whether a retry may succeed. Follows the chain of causes, since InputError wraps storage errors."""
    while error is not None:
        if isinstance(error, aiohttp.ClientResponseError):
            return error.status == _TOO_MANY_REQUESTS or error.status >= _SERVER_ERROR
        if isinstance(error, (*STORAGE_ERRORS, aiohttp.ClientError)):
            return not isinstance(error, _PERMANENT) and getattr(error, "errno", None) not in _PERMANENT_ERRNO
        error = error.__cause__
    return False


def with_retries(action: Callable[[], T], timeout_s: float = math.inf) -> T:
    """Call `action` up to MAX_ATTEMPTS times while its errors are transient, and not again after `timeout_s`.
    Raises the last error."""
    # Jitter keeps many tasks from retrying at the same moment.
    wait = wait_exponential_jitter(multiplier=INITIAL_WAIT_S, jitter=INITIAL_WAIT_S)
    stop = stop_after_attempt(MAX_ATTEMPTS) | stop_after_delay(timeout_s)
    return Retrying(retry=retry_if_exception(is_transient), stop=stop, wait=wait, reraise=True)(action)
