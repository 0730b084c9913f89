"""What may pass by itself is tried again: a busy server, a cut connection, a short read."""

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

import aiohttp

from stbir.storage.folder import UNREACHABLE

TRIES = 5
FIRST_WAIT = 0.25  # seconds, doubled each time
_PERMANENT = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
# What storage answers to a request that it will never grant, as s3fs translates it.
_REFUSED = (errno.EINVAL, errno.EPERM, errno.ENAMETOOLONG, errno.ENOSYS)
_TOO_MANY_REQUESTS, _SERVER_ERROR = 429, 500
T = TypeVar("T")


class ShortRead(OSError):
    """Fewer or more bytes came than were announced."""


def transient(error: BaseException | None) -> bool:
    """Whether the same call may succeed a moment later. What an InputError hides counts."""
    while error is not None:
        if isinstance(error, aiohttp.ClientResponseError):
            return error.status == _TOO_MANY_REQUESTS or error.status >= _SERVER_ERROR
        if isinstance(error, (*UNREACHABLE, aiohttp.ClientError)):
            return not isinstance(error, _PERMANENT) and getattr(error, "errno", None) not in _REFUSED
        error = error.__cause__
    return False


def patiently(action: Callable[[], T]) -> T:
    """The action's result, tried up to TRIES times while its errors are transient; raises the last one."""
    wait = FIRST_WAIT
    for _ in range(TRIES - 1):
        try:
            return action()
        except Exception as error:
            if not transient(error):
                raise
        time.sleep(wait * random.uniform(0.5, 1.5))  # many tasks do not come back at the same moment
        wait *= 2
    return action()
