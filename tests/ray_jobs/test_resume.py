"""A run killed at any step and started again is the run that was never killed."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from ray_jobs import train
from ray_jobs.train_job import steps_done
from stbir.data.storage import Folder
from stbir.errors import InputError
from stbir.model import checkpoint
from tests.conftest import start_training, wait_until


def logged(out: Path) -> list[tuple[str, int, float]]:
    """Stage, step and loss of every step that counted, in order."""
    names = Folder(str(out)).names("log/*.jsonl")
    lines = [json.loads(line) for name in sorted(names) for line in (out / name).read_text().splitlines()]
    return [(line["stage"], line["step"], line["loss"]) for line in lines]


@pytest.mark.slow(reason="three runs on Ray Train, one of them in a process of its own that is killed")
@pytest.mark.timeout(400)
def test_a_driver_killed_on_the_way_changes_no_bit(ray_cluster: str, shards: str, tmp_path: Path) -> None:
    arguments = ["--recipe", "smoke", "--shards", shards, "--save-every", "3"]
    arguments += ["--set", "batch=8", "stages.sketch.epochs=4"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    job = start_training(ray_cluster, *arguments, "--out", str(cut))
    saves = cut / "log"
    wait_until(lambda: len(list(saves.glob("*"))) > 1 or job.poll() is not None, "two saves", 180)
    assert job.poll() is None, job.communicate()[1]
    job.kill()
    job.communicate()
    saved = steps_done(str(cut))
    finished = [
        train.main(train.parser().parse_args([*arguments, "--out", str(out)])) for out in (cut, whole)
    ]
    assert 0 < saved < finished[0]["steps"] == finished[1]["steps"] == finished[0]["total"]

    steps = logged(whole)
    assert len(steps) == finished[1]["steps"]
    for _, of_stage in itertools.groupby(steps, key=lambda step: step[0]):
        numbers = [number for _, number, _ in of_stage]
        assert numbers == list(range(1, len(numbers) + 1))
    assert logged(cut) == steps  # none twice, none missing, and each loss equal to the last bit
    one, other = (checkpoint.load(str(out)).state_dict() for out in (cut, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_saving_every_no_steps_is_refused(tmp_path: Path) -> None:
    arguments = ["--recipe", "smoke", "--shards", "nowhere", "--out", str(tmp_path), "--save-every", "0"]
    with pytest.raises(InputError, match="--save-every: 0 is not at least 1"):
        train.main(train.parser().parse_args(arguments))
