"""What a run tells of its steps: each that counted once, on disk and in TensorBoard."""

from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_jobs.training import profiling
from ray_jobs.training.log import TrainLog, step_of
from stbir.storage.folder import Folder
from tests.ray_jobs.alone import job_of, recipe_to_cut, work_alone
from tests.ray_jobs.test_resume import logged


def test_what_was_written_for_a_save_that_never_came_is_dropped(shards: str, tmp_path: Path) -> None:
    folder, out = Folder(str(tmp_path)), str(tmp_path)
    kept = ["log/step-00000005.jsonl", "tensorboard/events.out.tfevents.00000005.steps"]
    lost = ["log/step-00000009.jsonl", "tensorboard/events.out.tfevents.00000007.validation"]
    for name in (*kept, *lost):
        folder.write(name, b"")
    assert [step_of(name) for name in (*kept, *lost)] == [5, 5, 9, 7]
    TrainLog(job_of(recipe_to_cut(), shards, out), 5, lambda: None)
    assert [*folder.names("log/*"), *folder.names("tensorboard/*")] == kept


@pytest.mark.slow(reason="trains, in this process")
def test_tensorboard_has_every_step_with_its_stage_and_noise(shards: str, tmp_path: Path) -> None:
    job = job_of(recipe_to_cut(), shards, str(tmp_path), save_every=3)
    assert work_alone(replace(job, profile="torch", validate="val")) is None
    steps = logged(job.out)
    read = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    losses = read.Scalars("loss")
    assert [event.step for event in losses] == list(range(1, sum(job.steps) + 1))
    assert [event.value for event in losses] == pytest.approx([loss for _, _, loss in steps], rel=1e-5)
    stages = [stage.name for stage in job.recipe.stages]
    assert [stages[round(event.value)] for event in read.Scalars("stage")] == [name for name, _, _ in steps]
    noise = {event.step: event.value for event in read.Scalars("noise/strength")}
    first_noisy = 1 + sum(job.steps[:1])
    assert noise[1] == 0
    assert noise[first_noisy + job.steps[1] - 1] > noise[first_noisy] > 0
    assert {tag for tag in read.Tags()["scalars"] if tag.startswith("val acc@1/")} >= {"val acc@1/sketch"}
    assert (tmp_path / profiling.PROFILE / "torch.json").stat().st_size > 1000
