"""TensorBoard reads the event files of a run."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stbir.training.events import event_file


def test_tensorboard_reads_all_scalars_of_all_files(tmp_path: Path) -> None:
    earlier = [(1, {"loss": 2.5, "lr": 1e-3}), (2, {"loss": 2.25, "lr": 5e-4})]
    later = [(3, {"loss": 2.125, "noise/strength": 0.2})]
    (tmp_path / "events.out.tfevents.00000002.steps").write_bytes(event_file(earlier))
    (tmp_path / "events.out.tfevents.00000003.steps").write_bytes(event_file(later))
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(1, 2.5), (2, 2.25), (3, 2.125)]
    assert [e.value for e in read.Scalars("lr")] == pytest.approx([1e-3, 5e-4])
    assert [e.step for e in read.Scalars("noise/strength")] == [3]
