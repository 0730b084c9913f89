"""What replicas hold of a release, and of the one before it while the service changes over."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Any


class Generations:
    """`make(key)` for the `kept` keys asked for last; made once, in the thread of who asks first.

    Two are kept: requests that began under the old release end under it.
    """

    def __init__(self, make: Callable[[Any], Any], kept: int = 2) -> None:
        self._make, self._kept = make, kept
        self._made: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._lock = Lock()

    def there(self, key: Hashable) -> Any | None:
        """What was made of `key`, at once; None where it has to be waited for."""
        with self._lock:
            made = self._made.get(key)
            if made is None or not made.done() or made.exception():
                return None
            self._made.move_to_end(key)  # what requests ask for is not what has to go
            return made.result()

    def get(self, key: Hashable) -> Any:
        """What is made of `key`. Raises what `make` raises; the next who asks tries again."""
        made, mine = self._place(key)
        if mine:
            try:
                made.set_result(self._make(key))
            except BaseException as error:
                with self._lock:
                    self._made.pop(key, None)
                made.set_exception(error)
        return made.result()

    def _place(self, key: Hashable) -> tuple[Future[Any], bool]:
        """Where the result will be, and whether the caller is to make it."""
        with self._lock:
            mine = key not in self._made
            made = self._made.setdefault(key, Future())
            self._made.move_to_end(key)
            while len(self._made) > self._kept:
                self._made.popitem(last=False)
        return made, mine
