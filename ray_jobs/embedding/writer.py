"""Rows of the gallery → its table, beside the embedding: fragments as they come, versions now and then."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from stbir.gallery.table_writer import Growth
from stbir.storage.lock import Lock

# About 10 kB a photo with its thumbnail: what is held at a time, twice.
_ROWS_A_FRAGMENT = 16_384
# Killed, a job loses at most this much, or this share of what it took: so a long one makes no more than some
# hundred versions.
_LEAST_SECONDS, _SHARE = 5.0, 0.02


class Writer:
    """Used as a context: what was added is in the table when it ends well, and not when it does not."""

    def __init__(self, growth: Growth, lock: Lock) -> None:
        self._growth, self._lock = growth, lock
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None
        self._rows: list[pa.Table] = []
        self._began = self._committed = time.monotonic()

    def add(self, rows: pa.Table) -> None:
        """Take rows; waits only where those before the last are not yet written."""
        self._rows.append(rows)
        if self._due:
            self._committed = time.monotonic()
            self._do(self._commit)
        elif sum(table.num_rows for table in self._rows) >= _ROWS_A_FRAGMENT:
            self._do(self._growth.add)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._do(self._commit)
                self._wait()
        finally:
            self._thread.shutdown(cancel_futures=True)

    @property
    def _due(self) -> bool:
        now = time.monotonic()
        return now - self._committed > max(_LEAST_SECONDS, _SHARE * (now - self._began))

    def _do(self, write: Callable[[pa.Table], None]) -> None:
        self._wait()
        if self._rows:
            table = pa.concat_tables(self._rows)
            self._rows = []
            self._last = self._thread.submit(write, table)

    def _commit(self, rows: pa.Table) -> None:
        if rows.num_rows:
            self._growth.add(rows)
        self._lock.check()
        self._growth.commit()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()
