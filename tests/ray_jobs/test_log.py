"""The log of a run contains each step exactly once, on disk and in TensorBoard."""

from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_jobs.training import profiling
from ray_jobs.training.log import TrainLog, step_in_name
from ray_jobs.training.validation import Validation
from stbir.storage.folder import Folder
from tests.ray_jobs.local_run import local_job, resume_recipe, run_locally
from tests.ray_jobs.test_resume import logged


def test_log_files_newer_than_the_checkpoint_are_removed(local_shards: str, tmp_path: Path) -> None:
    folder, out = Folder(str(tmp_path)), str(tmp_path)
    current = ["log/step-00000005.jsonl", "tensorboard/events.out.tfevents.00000005.steps"]
    stale = ["log/step-00000009.jsonl", "tensorboard/events.out.tfevents.00000007.validation"]
    for name in (*current, *stale, "log/step-00000005.jsonl.463aec79.part"):  # left by a kill
        folder.write(name, b"")
    assert [step_in_name(name) for name in (*current, *stale)] == [5, 5, 9, 7]
    TrainLog(local_job(resume_recipe(), local_shards, out), 5, lambda: None, lambda step, values: None)
    assert [*folder.list_files("log/*"), *folder.list_files("tensorboard/*")] == current


@pytest.mark.slow(reason="trains, in this process")
def test_tensorboard_has_all_steps_with_stage_and_noise(local_shards: str, tmp_path: Path) -> None:
    job = local_job(resume_recipe(), local_shards, str(tmp_path), checkpoint_interval=3)
    assert run_locally(replace(job, profiler="torch", validation=Validation(local_shards, ("val",)))) is None
    steps = logged(job.out)
    read = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    losses = read.Scalars("loss")
    assert [event.step for event in losses] == list(range(1, sum(job.steps) + 1))
    assert [event.value for event in losses] == pytest.approx([loss for _, _, loss in steps], rel=1e-5)
    stages = [stage.name for stage in job.recipe.stages]
    assert [stages[round(event.value)] for event in read.Scalars("stage")] == [name for name, _, _ in steps]
    noise = {event.step: event.value for event in read.Scalars("noise/strength")}
    noise_start = 1 + sum(job.steps[:1])
    assert noise[1] == 0
    assert noise[noise_start + job.steps[1] - 1] > noise[noise_start] > 0
    assert {tag for tag in read.Tags()["scalars"] if tag.startswith("val acc@1/")} >= {"val acc@1/sketch"}
    assert (tmp_path / profiling.PROFILE / "torch.json").stat().st_size > 1000
