"""The faults of an embedding job: counts in memory, the quarantine on disk until it is written."""

import shutil
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from stbir.catalogue.photo import NOT_TAKEN
from stbir.data.schema import QUARANTINE_SCHEMA
from stbir.data.shard_writer import QUARANTINE
from stbir.data.validation import Fault
from stbir.storage.folder import Folder
from stbir.storage.scratch_file import open_scratch_file

_MAX_EXAMPLES = 10
_BATCH_FAULTS = 4096  # in memory


class FaultLog:
    """Listed files that were not embedded. `examples`: the first errors."""

    def __init__(self) -> None:
        self.examples: list[Fault] = []
        self._errors, self._not_taken = Counter[str](), Counter[tuple[str, str]]()
        self._batch: list[Fault] = []
        self._file = open_scratch_file(self)
        self._writer = pq.ParquetWriter(self._file, QUARANTINE_SCHEMA)
        weakref.finalize(self, self._writer.close)  # before its file: the latest finalizer is the first

    def add(self, faults: Iterable[Fault]) -> None:
        """Add faults in the order of the quarantine."""
        for fault in faults:
            if fault.reason in NOT_TAKEN:
                self._not_taken[fault.reason, fault.detail or ""] += 1
            else:
                self._errors[fault.reason] += 1
                self.examples += [fault] if len(self.examples) < _MAX_EXAMPLES else []
            self._batch.append(fault)
            if len(self._batch) == _BATCH_FAULTS:
                self._write_batch()

    @property
    def num_errors(self) -> int:
        """The number of photos that were not embedded."""
        return self._errors.total()

    def errors_by_reason(self) -> str:
        """`N x REASON` for each reason, the most frequent first."""
        return ", ".join(f"{count} x {reason}" for reason, count in self._errors.most_common())

    def not_taken(self) -> dict[str, dict[str, int]]:
        """The number of listed files that are no photos, by reason and kind of file."""
        counts: dict[str, dict[str, int]] = {}
        for (reason, kind), count in self._not_taken.most_common():
            counts.setdefault(reason, {})[kind] = count
        return counts

    def write(self, folder: Folder) -> None:
        """Write the quarantine, once. An empty one replaces the file of an earlier run."""
        self._write_batch()
        self._writer.close()
        self._file.seek(0)
        with folder.open_for_writing(QUARANTINE) as file:
            shutil.copyfileobj(self._file, file)

    def _write_batch(self) -> None:
        table = pa.Table.from_pylist([asdict(fault) for fault in self._batch], schema=QUARANTINE_SCHEMA)
        self._writer.write_table(table)
        self._batch = []
