"""Handles of replicas in the process of their caller, with the interface of Ray Serve's handles."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class LocalResponses:
    """The responses to a broadcast."""

    responses: Sequence[Awaitable[Any]]

    async def results_async(self, return_exceptions: bool = False) -> list[Any]:
        """The results, in order; with `return_exceptions` an error is one of them."""
        return await asyncio.gather(*self.responses, return_exceptions=return_exceptions)


@dataclass(frozen=True)
class LocalMethod:
    """A method of a replica: `remote` starts it; its response can be awaited or cancelled."""

    method: Callable[..., Any]

    def remote(self, *args: Any) -> asyncio.Task[Any]:
        """As in Ray Serve, it awaits the responses in `args` first, and a plain method runs in a thread."""
        response = asyncio.get_running_loop().create_task(self._call(*args))
        # A search that fails by one encoder awaits no other: its error is not "never retrieved".
        response.add_done_callback(lambda done: done.cancelled() or done.exception())
        return response

    async def _call(self, *args: Any) -> Any:
        values = [await arg if isinstance(arg, asyncio.Task) else arg for arg in args]
        if inspect.iscoroutinefunction(self.method):
            return await self.method(*values)
        return await asyncio.to_thread(self.method, *values)


class LocalHandle:
    """The handle of one replica, which the process that first uses it creates: `cls(*args)`."""

    def __init__(self, cls: type, *args: Any) -> None:
        self._class, self._args = cls, args

    @cached_property
    def _replica(self) -> Any:
        return self._class(*self._args)

    def broadcast(self, name: str, *args: Any) -> LocalResponses:
        """Call a method of each replica, of which there is one."""
        return LocalResponses([getattr(self, name).remote(*args)])

    def __reduce__(self) -> tuple[Any, ...]:
        """Serve pickles the arguments of a deployment, also after its replica has used them."""
        return LocalHandle, (self._class, *self._args)

    def __getattr__(self, name: str) -> LocalMethod:
        return LocalMethod(getattr(self._replica, name))
