"""The text cache of a replica."""

from collections.abc import Hashable

from cachetools import LRUCache

from serve.messages import Vector


class TextCache(LRUCache[Hashable, Vector]):
    """Text vectors, least recently used evicted; size 0 stores none. Not thread-safe: for one event loop."""

    def __setitem__(self, key: Hashable, vector: Vector) -> None:
        if self.maxsize:
            super().__setitem__(key, vector)
