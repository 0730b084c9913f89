"""The loaded model versions of a replica: the active one, and during a rollout the previous one."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Any


class ModelVersions:
    """A thread-safe LRU cache of `load(key)`; concurrent callers of a new key share one call of `load`.

    `keys_in_force`: the keys that stay loaded while others come, used or not, however many they are. The
    default count of two lets requests of the previous release finish during a rollout.
    """

    def __init__(
        self,
        load: Callable[[Any], Any],
        keys_in_force: Callable[[], Collection[Hashable]] = tuple,
        max_count: int = 2,
    ) -> None:
        self._load, self._keys_in_force, self._max_count = load, keys_in_force, max_count
        self._loaded: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._lock = Lock()

    def get_loaded(self, key: Hashable) -> Any | None:
        """The value of `key` without waiting; None if it is not loaded."""
        with self._lock:
            future = self._loaded.get(key)
            if future is None or not future.done() or future.exception():
                return None
            self._loaded.move_to_end(key)
            return future.result()

    def get(self, key: Hashable) -> Any:
        """The value of `key`, loaded if needed. Raises the error of `load`; the next call tries again."""
        future, is_new = self._reserve(key)
        if is_new:
            try:
                future.set_result(self._load(key))
            except BaseException as error:
                with self._lock:
                    if self._loaded.get(key) is future:  # not that of a later caller, after an eviction
                        del self._loaded[key]
                future.set_exception(error)
        return future.result()

    async def get_async(self, key: Hashable) -> Any:
        """The value of `key`; loaded in a thread if needed, while requests of another release continue."""
        return self.get_loaded(key) or await asyncio.to_thread(self.get, key)

    def _reserve(self, key: Hashable) -> tuple[Future[Any], bool]:
        """The future of `key`, and whether the caller has to complete it."""
        in_force = () if key in self._loaded else self._keys_in_force()
        with self._lock:
            is_new = key not in self._loaded
            future = self._loaded.setdefault(key, Future())
            protected = [each for each in self._loaded if each in in_force and each != key]
            for each in (*protected, key):
                self._loaded.move_to_end(each)
            while is_new and len(self._loaded) > max(self._max_count, len(protected) + 1):
                self._loaded.popitem(last=False)
        return future, is_new
