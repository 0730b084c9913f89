"""Results of the items of a group: an error of one item does not affect the others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pyarrow as pa

from serve.deadline import Deadline, DeadlineExceededError
from stbir.errors import InputError

log = logging.getLogger(__name__)
# Errors of storage and memory. Lance's readers raise those of storage as ArrowInvalid.
_TEMPORARY = (OSError, MemoryError, pa.ArrowException)


def item_error(error: Exception) -> Exception:
    """An error as the result of its item: as it is if expected, an OSError if temporary, or a RuntimeError.

    An unexpected one is logged here, where its traceback is; its type may not exist in another process.
    """
    if isinstance(error, InputError | DeadlineExceededError):
        return error
    log.error("an item of a group failed", exc_info=error)
    message = f"{type(error).__name__}: {error}"
    return OSError(message) if isinstance(error, _TEMPORARY) else RuntimeError(message)


async def map_items(
    step: Callable[[Any, Deadline], Awaitable[Any]], items: Sequence[Any], deadlines: Sequence[Deadline]
) -> list[Any]:
    """The result of `step` for each item, concurrently.

    None and exceptions among the items stay unchanged. The error of an item is its result (`item_error`).
    """

    async def run(item: Any, deadline: Deadline) -> Any:
        if item is None or isinstance(item, Exception):
            return item
        try:
            return await step(item, deadline)
        except Exception as error:
            return item_error(error)

    return await asyncio.gather(*map(run, items, deadlines))
