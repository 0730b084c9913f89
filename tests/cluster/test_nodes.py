"""Training on several nodes: the same run as on one, whichever of them come and go."""

import itertools
import json
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training.job import steps_done as cursor
from stbir.config import Recipe
from stbir.data.photo_index import classes_of, index_photos
from stbir.data.sampling import steps
from stbir.data.shards import open_shards
from stbir.storage.folder import Folder
from stbir.storage.manifest import NAME as MANIFEST
from tests.cluster.conftest import Nodes, finished, wait_beside
from tests.conftest import ROOT, wait_until
from tests.ray_jobs.alone import job_of, work_alone

# Each starts a cluster, and training workers in it that import the model libraries, most of them twice.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WORKER = "RayTrainWorker"
# Seconds to wait at most; on two free cores training starts within half a minute.
START, END = 240, 300
LONG = ["batch_size=12", "stages.pretrain.epochs=6", "stages.sketch.epochs=20"]


def arguments(shards: str, out: str, *more: str) -> list[str]:
    return ["ray_jobs/train.py", "--recipe", "smoke", "--shards", shards, "--out", out, *more]


def logged(out: str) -> list[dict[str, Any]]:
    folder = Folder(out)
    lines = [line for name in folder.names("log/*") for line in folder.read(name).decode().splitlines()]
    return [json.loads(line) for line in lines]


def planned(shards: str, plan: Recipe) -> list[tuple[str, int, int]]:
    """Stage, step and checksum of the photos of each step, as the plan alone has them."""
    there = open_shards(shards)
    photos = index_photos(there, ["train"], classes_of(there, ["train"]))
    found = [(plan.stages[s.stage].name, s.number + 1, s.order.photo) for s in steps(photos, plan)]
    return [(stage, step, zlib.crc32(photo.astype(np.int64).tobytes())) for stage, step, photo in found]


def seen(out: str) -> list[tuple[str, int, int]]:
    return [(line["stage"], line["step"], line["seen"]) for line in logged(out)]


def steps_done(out: str) -> int:
    return cursor(out) if Folder(out).exists(MANIFEST) else -1


def test_two_nodes_see_what_one_sees_and_learn_the_same(nodes: Nodes, drawn: str, out: str) -> None:
    nodes.add()
    nodes.add()
    small = override(recipe("smoke"), ["batch_size=8"])
    job = nodes.start(*arguments(drawn, out, "--workers", "2", "--set", "batch_size=8"))
    assert work_alone(job_of(small, drawn, f"{out}-alone")) is None
    assert finished(job, END)["steps"] == len(planned(drawn, small))

    assert seen(out) == seen(f"{out}-alone") == planned(drawn, small)
    losses = [np.array([line["loss"] for line in logged(place)]) for place in (out, f"{out}-alone")]
    print("mean loss on two nodes and one:", *(loss.mean() for loss in losses))
    assert losses[0].mean() == pytest.approx(losses[1].mean(), rel=0.01)


def test_a_node_lost_within_an_epoch_costs_no_sample(nodes: Nodes, drawn: str, out: str) -> None:
    three = [nodes.add() for _ in range(3)]
    job = nodes.start(*arguments(drawn, out, "--workers", "2", "--save-every", "5", "--set", *LONG))
    wait_beside(job, lambda: steps_done(out) > 0, "the first save", START)
    nodes.lose(next(node for node in three if nodes.workers(node, WORKER)))
    lost_at = steps_done(out)
    expected = planned(drawn, override(recipe("smoke"), LONG))
    assert 0 < lost_at < len(expected)
    assert finished(job, END)["steps"] == len(expected)
    assert seen(out) == expected


@pytest.mark.endurance  # three runs, one after the other
@pytest.mark.timeout(900)
def test_a_killed_command_goes_on_as_if_it_had_not_been(nodes: Nodes, drawn: str, out: str) -> None:
    nodes.add()
    wanted = arguments(drawn, out, "--save-every", "5", "--set", *LONG)
    job = nodes.start(*wanted)
    wait_beside(job, lambda: steps_done(out) > 0, "the first save", START)
    job.kill()
    job.communicate()
    plan = override(recipe("smoke"), LONG)
    expected = planned(drawn, plan)
    assert 0 < steps_done(out) < len(expected)
    assert finished(nodes.start(*wanted), END)["steps"] == len(expected)

    assert work_alone(job_of(plan, drawn, f"{out}-alone")) is None
    assert seen(out) == seen(f"{out}-alone") == expected
    assert [line["loss"] for line in logged(out)] == [line["loss"] for line in logged(f"{out}-alone")]


# How often Ray Train looks whether more workers fit: half a minute is long for a test. And what it counts
# then: as GPUs are on nodes that have some, one of a kind that only the workers' nodes have (not their
# labels, in Ray 2.60).
ELASTIC = """
from ray_jobs import train
from ray_jobs.cli import run
from ray_jobs.training import trainer
trainer.RESIZE_S, trainer.EACH = 3.0, {"CPU": 1, "worker": 1}
run(train.main, train.parser())
"""


@pytest.mark.timeout(900)  # three groups of workers, one after the other: minutes on two free cores
@pytest.mark.parametrize("nodes", [5], indirect=True)
def test_an_elastic_run_grows_and_shrinks_under_one_global_batch(nodes: Nodes, drawn: str, out: str) -> None:
    held = [nodes.add()]

    def working() -> int:
        return sum(bool(nodes.workers(node, WORKER)) for node in held)

    more = ["--workers", "1:3", "--save-every", "5", "--set", "batch_size=12", "stages.pretrain.epochs=60"]
    # After a loss Ray Train may wait this long (60 s) for a node that is gone, before it counts anew.
    patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30"}
    job = nodes.start("-c", ELASTIC, *arguments(drawn, out, *more)[1:], **patience)
    wait_beside(job, lambda: steps_done(out) > 0, "the first save of one worker", START)
    assert working() == 1
    held += [nodes.add(), nodes.add()]
    wait_beside(job, lambda: working() == 3, "growing to three workers", START)
    grown_at = steps_done(out)
    wait_beside(job, lambda: steps_done(out) > grown_at, "a save of three workers", START)
    nodes.lose(held.pop())
    lost_at = steps_done(out)
    wait_beside(job, lambda: steps_done(out) > lost_at and working() == 2, "a save of two workers", START)
    expected = planned(drawn, override(recipe("smoke"), more[5:]))
    assert finished(job, END)["steps"] == len(expected)
    assert seen(out) == expected


def drain(nodes: Nodes, node: Any, seconds: int) -> None:
    """What a cloud's notice becomes in Ray: this node goes in so many seconds."""
    order = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"]
    named = [f"--address={nodes.address}", f"--node-id={node.node_id}"]
    command = [
        str(Path(sys.executable).with_name("ray")),
        "drain-node",
        *named,
        *order,
        f"--deadline-remaining-seconds={seconds}",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_a_notice_leads_to_a_checkpoint_within_its_grace(nodes: Nodes, drawn: str, out: str) -> None:
    pair, grace = [nodes.add(), nodes.add()], 90
    job = nodes.start(*arguments(drawn, out, "--set", *LONG))
    wait_beside(job, lambda: steps_done(out) > 0, "the first epoch", START)
    drain(nodes, next(node for node in pair if nodes.workers(node, WORKER)), grace)
    noticed = time.monotonic()

    def saved_within_an_epoch() -> list[int]:
        return sorted(set(saves(out)) - ends_of_epochs(drawn))

    wait_until(lambda: bool(saved_within_an_epoch()), "a checkpoint within an epoch", grace)
    print(f"saved {time.monotonic() - noticed:.1f} s after the notice")
    expected = planned(drawn, override(recipe("smoke"), LONG))
    assert finished(job, END)["steps"] == len(expected)
    assert len(saved_within_an_epoch()) == 1
    assert seen(out) == expected


def saves(out: str) -> list[int]:
    return [int(name.removeprefix("log/step-").removesuffix(".jsonl")) for name in Folder(out).names("log/*")]


def ends_of_epochs(shards: str) -> set[int]:
    """After how many steps of the whole run an epoch of some stage has just ended."""
    plan = override(recipe("smoke"), LONG)
    job = job_of(plan, shards, "nowhere")
    ends, before = set[int](), 0
    for stage, count in zip(plan.stages, job.steps, strict=True):
        epochs = (int(step / (count / stage.epochs)) for step in itertools.count())
        numbers = [next(epochs) for _ in range(count + 1)]
        ends |= {before + i for i in range(1, count + 1) if numbers[i] > numbers[i - 1] or i == count}
        before += count
    return ends
