"""A resumed run equals an uninterrupted one, after a kill or a preemption."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ray_jobs import train
from ray_jobs.training.job import num_completed_steps
from ray_jobs.training.worker import PREEMPTION_CHECK_STEPS
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from tests.conftest import ROOT, wait_until
from tests.ray_jobs.local_run import local_job, resume_recipe, run_locally


def logged(out: str) -> list[tuple[str, int, float]]:
    """Stage, step and loss of all logged steps, in order."""
    folder = Folder(out)
    lines = [line for name in folder.list_files("log/*") for line in folder.read(name).decode().splitlines()]
    return [(line["stage"], line["step"], line["loss"]) for line in map(json.loads, lines)]


def in_order(steps: list[tuple[str, int, float]]) -> bool:
    """Whether the steps of each stage are 1, 2, 3, …, without duplicates or gaps."""
    stages = itertools.groupby(steps, key=lambda step: step[0])
    numbers = [[number for _, number, _ in of_stage] for _, of_stage in stages]
    return all(each == list(range(1, len(each) + 1)) for each in numbers)


@pytest.fixture(scope="module")
def complete(local_shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of an uninterrupted run."""
    out = str(tmp_path_factory.mktemp("complete"))
    assert run_locally(local_job(resume_recipe(), local_shards, out, checkpoint_interval=3)) is None
    return out


@pytest.mark.slow(reason="a training process of its own, which imports the model libraries and is killed")
def test_killed_run_resumes_with_identical_losses_and_weights(
    local_shards: str, complete: str, tmp_path: Path
) -> None:
    killed = str(tmp_path / "killed")
    command = [sys.executable, "-m", "tests.ray_jobs.local_run", local_shards, killed]
    process = subprocess.Popen(command, cwd=ROOT)
    log = Path(killed) / "log"
    wait_until(lambda: len(list(log.glob("*"))) > 1 or process.poll() is not None, "a second checkpoint", 120)
    assert process.poll() is None
    process.kill()
    process.wait()
    steps_at_kill = num_completed_steps(killed)
    assert run_locally(local_job(resume_recipe(), local_shards, killed, checkpoint_interval=3)) is None
    num_steps = num_completed_steps(complete)
    assert 0 < steps_at_kill < num_completed_steps(killed) == num_steps == len(logged(complete))
    assert in_order(logged(complete))
    assert logged(killed) == logged(complete)  # losses are equal to the bit
    resumed, expected = (checkpoint.load(out).state_dict() for out in (killed, complete))
    assert all(torch.equal(resumed[name], expected[name]) for name in resumed)


@pytest.mark.slow(reason="trains, in this process")
def test_preempted_run_loses_no_step(local_shards: str, complete: str, tmp_path: Path) -> None:
    preempted = str(tmp_path / "preempted")
    checks = itertools.count(1)
    job = local_job(resume_recipe(), local_shards, preempted)
    assert run_locally(job, preemption_info=lambda: "spot" if next(checks) == 2 else None) is None
    num_steps = job.steps[0] + PREEMPTION_CHECK_STEPS
    assert num_completed_steps(preempted) == len(logged(preempted)) == num_steps < sum(job.steps)
    assert run_locally(job) is None
    assert logged(preempted) == logged(complete)
    assert in_order(logged(preempted))


def test_checkpoint_interval_of_zero_is_rejected(tmp_path: Path) -> None:
    arguments = ["--recipe", "smoke", "--shards", "nowhere", "--out", str(tmp_path)]
    arguments += ["--checkpoint-every", "0"]
    with pytest.raises(InputError, match="--checkpoint-every: 0 is less than 1"):
        train.main(train.parser().parse_args(arguments))
