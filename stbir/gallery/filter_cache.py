"""An LRU cache of what filters select, limited by bytes."""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

V = TypeVar("V")


class FilterCache(Generic[V]):
    """Values by the SQL of a filter. Thread-safe.

    Not `functools.lru_cache` on a method: that refers to its object, which then outlives its last user until
    a full garbage collection.
    """

    def __init__(self, max_bytes: int, num_bytes: Callable[[V], int]) -> None:
        """`num_bytes` is the size of a value; one above `max_bytes` is not cached."""
        self.max_bytes, self._num_bytes = max_bytes, num_bytes
        self._values: LRUCache[str, V] = LRUCache(max_bytes, getsizeof=lambda value: 1 + num_bytes(value))
        self._lock = Lock()

    def get(self, sql: str, compute: Callable[[], V]) -> V:
        """The value of a filter, computed if it is not cached. Threads may compute a new value twice."""
        with self._lock:
            value = self._values.get(sql)
        if value is None:
            value = compute()
            if self._num_bytes(value) < self.max_bytes:
                with self._lock:
                    self._values[sql] = value
        return value

    @property
    def size_bytes(self) -> int:
        """The size of all cached values."""
        return int(self._values.currsize)
