"""The vectors of what was asked for last."""

from collections import OrderedDict
from collections.abc import Hashable

from serve.messages import Vector


class Recent:
    """The `most` vectors used last, by name; 0 keeps none. For one thread: the event loop's."""

    def __init__(self, most: int) -> None:
        self.most, self._kept = most, OrderedDict[Hashable, Vector]()

    def get(self, name: Hashable) -> Vector | None:
        """The vector, which counts as used now; None where it is not kept."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def put(self, name: Hashable, vector: Vector) -> None:
        """Keep it, and let the one go that was not used for longest."""
        self._kept[name] = vector
        self._kept.move_to_end(name)
        if len(self._kept) > self.most:
            self._kept.popitem(last=False)
