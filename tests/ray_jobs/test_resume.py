"""A run killed at any step and started again is the run that was never killed."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ray_jobs import train
from ray_jobs.training.job import steps_done
from ray_jobs.training.worker import NOTICE_EVERY
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from tests.conftest import ROOT, wait_until
from tests.ray_jobs.alone import job_of, recipe_to_cut, work_alone


def logged(out: str) -> list[tuple[str, int, float]]:
    """Stage, step and loss of every step that counted, in order."""
    folder = Folder(out)
    lines = [line for name in folder.names("log/*") for line in folder.read(name).decode().splitlines()]
    return [(line["stage"], line["step"], line["loss"]) for line in map(json.loads, lines)]


def in_order(steps: list[tuple[str, int, float]]) -> bool:
    """Whether each stage's steps are 1, 2, 3, …: none twice, none missing."""
    stages = itertools.groupby(steps, key=lambda step: step[0])
    numbers = [[number for _, number, _ in of_stage] for _, of_stage in stages]
    return all(each == list(range(1, len(each) + 1)) for each in numbers)


@pytest.mark.slow(reason="a training process of its own, which imports the model libraries and is killed")
def test_a_run_killed_on_the_way_goes_on_to_the_last_bit(shards: str, tmp_path: Path) -> None:
    whole, cut = str(tmp_path / "whole"), str(tmp_path / "cut")
    command = [sys.executable, "-m", "tests.ray_jobs.alone", shards, cut]
    process = subprocess.Popen(command, cwd=ROOT)
    saves = Path(cut) / "log"
    wait_until(lambda: len(list(saves.glob("*"))) > 1 or process.poll() is not None, "two saves", 120)
    assert process.poll() is None
    process.kill()
    process.wait()
    saved = steps_done(cut)
    for out in (cut, whole):
        assert work_alone(job_of(recipe_to_cut(), shards, out, save_every=3)) is None
    assert 0 < saved < steps_done(cut) == steps_done(whole) == len(logged(whole))

    assert in_order(logged(whole))
    assert logged(cut) == logged(whole)  # and each loss equal to the last bit
    one, other = (checkpoint.load(out).state_dict() for out in (cut, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_leaves_at_a_notice_loses_no_step(shards: str, tmp_path: Path) -> None:
    whole, left = str(tmp_path / "whole"), str(tmp_path / "left")
    asked = itertools.count(1)
    job = job_of(recipe_to_cut(), shards, left)
    assert work_alone(job, notice=lambda: "spot" if next(asked) == 2 else None) is None
    assert steps_done(left) == len(logged(left)) == job.steps[0] + NOTICE_EVERY < sum(job.steps)
    for out in (left, whole):
        assert work_alone(job_of(recipe_to_cut(), shards, out)) is None
    assert logged(left) == logged(whole)
    assert in_order(logged(left))


def test_saving_every_no_steps_is_refused(tmp_path: Path) -> None:
    arguments = ["--recipe", "smoke", "--shards", "nowhere", "--out", str(tmp_path), "--save-every", "0"]
    with pytest.raises(InputError, match="--save-every: 0 is not at least 1"):
        train.main(train.parser().parse_args(arguments))
