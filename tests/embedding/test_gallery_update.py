"""The counts and faults of an update of a gallery's table."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stbir.data.validation import Fault
from stbir.embedding.fault_log import _BATCH_FAULTS, FaultLog
from stbir.embedding.gallery_update import _check_faults, _check_listing
from stbir.errors import InputError, JobFailedError
from stbir.storage.folder import Folder


def fault_log(*faults: Fault) -> FaultLog:
    log = FaultLog()
    log.add(faults)
    return log


def test_photos_that_are_listed_and_not_read_are_lost() -> None:
    counts = {"in": 38, "not_taken": 2}
    _check_listing(40, counts)
    assert counts == {"in": 38, "not_taken": 2, "listed": 40}
    with pytest.raises(JobFailedError, match="39 photos were read, 40 were listed; not published, run again"):
        _check_listing(40, {"in": 39, "not_taken": 0})


def test_listed_files_that_are_no_photos_are_counted_and_are_no_errors(tmp_path: Path) -> None:
    not_taken = [*[Fault("x.txt", "not an image", detail=".txt")] * 3, Fault("x", "link to a listed folder")]
    faults, folder = fault_log(*not_taken, Fault("y", "photo does not decode")), Folder(str(tmp_path))
    assert faults.not_taken() == {"not an image": {".txt": 3}, "link to a listed folder": {"": 1}}
    counts = {"in": 10, "ok": 9, "embedded": 9, "already_there": 0, "quarantined": 1, "failed": 0}
    counts["not_taken"] = 4
    _check_faults(folder, faults, counts, 0.1)
    with pytest.raises(
        JobFailedError, match=r"1 of 10 photos cannot be embedded \(1 x photo does not decode\)"
    ):
        _check_faults(folder, faults, counts, 0.09)
    with pytest.raises(InputError, match="--photos: none of the 4 listed files is a photo"):
        _check_faults(folder, fault_log(*not_taken), {**counts, "in": 0, "ok": 0}, 0.1)


def test_the_quarantine_has_every_fault_in_order(tmp_path: Path) -> None:
    faults = [Fault(f"{n}", "photo does not decode", detail=str(n)) for n in range(2 * _BATCH_FAULTS + 3)]
    for expected in (faults, []):  # an empty one replaces the file of the earlier run
        log = fault_log(*expected)
        assert len(log._batch) < _BATCH_FAULTS
        log.write(Folder(str(tmp_path)))
        rows = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
        assert [Fault(**row) for row in rows] == expected
