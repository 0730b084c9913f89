"""Results of the items of a group: an error of one item does not affect the others."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from serve.deadline import Deadline, DeadlineExceededError
from stbir.errors import InputError


async def map_items(
    step: Callable[[Any, Deadline], Awaitable[Any]], items: Sequence[Any], deadlines: Sequence[Deadline]
) -> list[Any]:
    """The result of `step` for each item, concurrently.

    None and exceptions among the items stay unchanged. InputError and DeadlineExceededError are results too.
    """

    async def run(item: Any, deadline: Deadline) -> Any:
        if item is None or isinstance(item, Exception):
            return item
        try:
            return await step(item, deadline)
        except (InputError, DeadlineExceededError) as error:
            return error

    return await asyncio.gather(*map(run, items, deadlines))
