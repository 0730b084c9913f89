"""What becomes of the items of a group: what is wrong with one harms no other."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from serve.deadline import DeadlineExceededError
from stbir.errors import InputError


async def outcomes(
    step: Callable[[Any, float], Awaitable[Any]], items: Sequence[Any], deadlines: Sequence[float]
) -> list[Any]:
    """What a step makes of each item, all at once. None stays None, and what was or is wrong with one (an
    exception) stands in its place."""

    async def outcome(item: Any, deadline: float) -> Any:
        if item is None or isinstance(item, Exception):
            return item
        try:
            return await step(item, deadline)
        except (InputError, DeadlineExceededError) as error:
            return error

    return await asyncio.gather(*map(outcome, items, deadlines))
