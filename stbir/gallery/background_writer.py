"""Write the gallery's table and its identities in a background thread while photos are embedded."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from stbir.gallery.identity_store import IdentityStore
from stbir.gallery.store import TableWriter
from stbir.storage.lock import Lock

# With its thumbnail a row takes about 10 kB, and two fragments are in memory.
_FRAGMENT_ROWS = 16_384
# A killed job loses at most this time, or this share of its time: a long job makes some hundred versions.
_MIN_COMMIT_INTERVAL_S, _COMMIT_INTERVAL_SHARE = 5.0, 0.02


class BackgroundWriter:
    """A context manager. A clean exit commits all rows; after an exception, uncommitted rows are dropped."""

    def __init__(self, writer: TableWriter, store: IdentityStore, lock: Lock) -> None:
        self._writer, self._store, self._lock = writer, store, lock
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._rows: list[pa.Table] = []
        self._identities = deque[tuple[bytes, bytes]]()
        self._start = self._committed = time.monotonic()

    def add(self, rows: pa.Table, identities: Iterable[tuple[bytes, bytes]]) -> None:
        """Buffer rows, and write them when a commit is due or a fragment is full. Blocks during a write.
        Identities, of any rows, are written with them, since they hold whether the rows are committed or not.
        """
        self._rows.append(rows)
        self._identities.extend(identities)
        if self._is_commit_due():
            self._committed = time.monotonic()
            self._submit(self._commit)
        elif max(sum(table.num_rows for table in self._rows), len(self._identities)) >= _FRAGMENT_ROWS:
            self._submit(self._append)

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._submit(self._commit)
                self._wait()
        finally:
            self._thread.shutdown(cancel_futures=True)

    def _is_commit_due(self) -> bool:
        now = time.monotonic()
        interval_s = max(_MIN_COMMIT_INTERVAL_S, _COMMIT_INTERVAL_SHARE * (now - self._start))
        return now - self._committed > interval_s

    def _submit(self, write: Callable[[pa.Table], None]) -> None:
        self._wait()
        if self._rows:
            table = pa.concat_tables(self._rows)
            self._rows = []
            self._pending = self._thread.submit(write, table)

    def _append(self, rows: pa.Table) -> None:
        if rows.num_rows:
            self._writer.append(rows)
        self._store.append([self._identities.popleft() for _ in range(len(self._identities))])

    def _commit(self, rows: pa.Table) -> None:
        self._append(rows)
        self._lock.check()
        self._writer.commit()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
