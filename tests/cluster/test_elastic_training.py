"""Training on several nodes equals training on one, whichever nodes join and leave."""

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
from ray_jobs.training.job import num_completed_steps as cursor
from stbir.config import Recipe
from stbir.data.photo_index import build_photo_index, class_names
from stbir.data.sampling import iter_steps
from stbir.data.shards import open_shards
from stbir.storage.folder import Folder
from stbir.storage.manifest import MANIFEST_FILE as MANIFEST
from tests.cluster.conftest import Nodes, finished, wait_while_running
from tests.conftest import ROOT, wait_until
from tests.ray_jobs.local_run import local_job, run_locally

# Each starts a cluster, whose training workers import the model libraries, most of them twice.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WORKER = "RayTrainWorker"
# Training starts within half a minute on two idle cores.
START_TIMEOUT_S, END_TIMEOUT_S = 240, 300
LONG = ["batch_size=12", "stages.pretrain.epochs=6", "stages.sketch.epochs=20"]


def arguments(shards: str, out: str, *more: str) -> list[str]:
    # Without validation, as the run in one process: a stage would start from the best epoch before it.
    fixed = ["--recipe", "smoke", "--val-split", "none", "--shards", shards, "--out", out]
    return ["ray_jobs/train.py", *fixed, *more]


def logged(out: str) -> list[dict[str, Any]]:
    folder = Folder(out)
    lines = [line for name in folder.list_files("log/*") for line in folder.read(name).decode().splitlines()]
    return [json.loads(line) for line in lines]


def planned(shards: str, plan: Recipe) -> list[tuple[str, int, int]]:
    """Stage, step and checksum of the photos of each step, from the plan."""
    opened = open_shards(shards)
    photos = build_photo_index(opened, ["train"], class_names(opened, ["train"]))
    sample_steps = [
        (plan.stages[s.stage].name, s.number + 1, s.order.photo) for s in iter_steps(photos, plan)
    ]
    return [
        (stage, step, zlib.crc32(photo.astype(np.int64).tobytes())) for stage, step, photo in sample_steps
    ]


def logged_steps(out: str) -> list[tuple[str, int, int]]:
    return [(line["stage"], line["step"], line["seen"]) for line in logged(out)]


def num_completed_steps(out: str) -> int:
    return cursor(out) if Folder(out).exists(MANIFEST) else -1


def test_two_nodes_train_on_the_same_photos_with_the_same_loss(
    nodes: Nodes, synthetic_shards: str, out: str
) -> None:
    nodes.add()
    nodes.add()
    small = override(recipe("smoke"), ["batch_size=8"])
    job = nodes.start(*arguments(synthetic_shards, out, "--workers", "2", "--set", "batch_size=8"))
    assert run_locally(local_job(small, synthetic_shards, f"{out}-alone")) is None
    assert finished(job, END_TIMEOUT_S)["steps"] == len(planned(synthetic_shards, small))

    assert logged_steps(out) == logged_steps(f"{out}-alone") == planned(synthetic_shards, small)
    losses = [np.array([line["loss"] for line in logged(place)]) for place in (out, f"{out}-alone")]
    print("mean loss on two nodes and one:", *(loss.mean() for loss in losses))
    assert losses[0].mean() == pytest.approx(losses[1].mean(), rel=0.01)


def test_node_loss_within_an_epoch_skips_no_sample(nodes: Nodes, synthetic_shards: str, out: str) -> None:
    three = [nodes.add() for _ in range(3)]
    job = nodes.start(
        *arguments(synthetic_shards, out, "--workers", "2", "--checkpoint-every", "5", "--set", *LONG)
    )
    wait_while_running(job, lambda: num_completed_steps(out) > 0, "the first save", START_TIMEOUT_S)
    nodes.remove_node(next(node for node in three if nodes.workers(node, WORKER)))
    steps_at_removal = num_completed_steps(out)
    expected = planned(synthetic_shards, override(recipe("smoke"), LONG))
    assert 0 < steps_at_removal < len(expected)
    assert finished(job, END_TIMEOUT_S)["steps"] == len(expected)
    assert logged_steps(out) == expected


@pytest.mark.endurance  # three runs, one after the other
@pytest.mark.timeout(900)
def test_killed_command_resumes_bit_for_bit(nodes: Nodes, synthetic_shards: str, out: str) -> None:
    nodes.add()
    command = arguments(synthetic_shards, out, "--checkpoint-every", "5", "--set", *LONG)
    job = nodes.start(*command)
    wait_while_running(job, lambda: num_completed_steps(out) > 0, "the first save", START_TIMEOUT_S)
    job.kill()
    job.communicate()
    plan = override(recipe("smoke"), LONG)
    expected = planned(synthetic_shards, plan)
    assert 0 < num_completed_steps(out) < len(expected)
    assert finished(nodes.start(*command), END_TIMEOUT_S)["steps"] == len(expected)

    assert run_locally(local_job(plan, synthetic_shards, f"{out}-alone")) is None
    assert logged_steps(out) == logged_steps(f"{out}-alone") == expected
    assert [line["loss"] for line in logged(out)] == [line["loss"] for line in logged(f"{out}-alone")]


# Shortens the interval at which Ray Train checks for more workers. WORKER_RESOURCES has a resource that only
# worker nodes have, like GPUs: Ray 2.60 ignores labels there.
ELASTIC = """
from ray_jobs import train
from ray_jobs.cli import run
from ray_jobs.training import trainer
trainer.RESIZE_INTERVAL_S, trainer.WORKER_RESOURCES = 3.0, {"CPU": 1, "worker": 1}
run(train.main, train.parser())
"""


@pytest.mark.timeout(900)  # three worker groups in turn: minutes on two idle cores
@pytest.mark.parametrize("nodes", [5], indirect=True)
def test_elastic_run_scales_up_and_down_with_one_global_batch(
    nodes: Nodes, synthetic_shards: str, out: str
) -> None:
    workers = [nodes.add()]

    def num_active() -> int:
        return sum(bool(nodes.workers(node, WORKER)) for node in workers)

    options = [
        "--workers",
        "1:3",
        "--checkpoint-every",
        "5",
        "--set",
        "batch_size=12",
        "stages.pretrain.epochs=60",
    ]
    # Ray Train may wait this long (default 60 s) for a lost node.
    timeout = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30"}
    job = nodes.start("-c", ELASTIC, *arguments(synthetic_shards, out, *options)[1:], **timeout)
    wait_while_running(
        job, lambda: num_completed_steps(out) > 0, "the first save of one worker", START_TIMEOUT_S
    )
    assert num_active() == 1
    workers += [nodes.add(), nodes.add()]
    wait_while_running(job, lambda: num_active() == 3, "scaling up to three workers", START_TIMEOUT_S)
    grown_at = num_completed_steps(out)
    wait_while_running(
        job, lambda: num_completed_steps(out) > grown_at, "a save of three workers", START_TIMEOUT_S
    )
    nodes.remove_node(workers.pop())
    steps_at_removal = num_completed_steps(out)
    wait_while_running(
        job,
        lambda: num_completed_steps(out) > steps_at_removal and num_active() == 2,
        "a save of two workers",
        START_TIMEOUT_S,
    )
    expected = planned(synthetic_shards, override(recipe("smoke"), options[5:]))
    assert finished(job, END_TIMEOUT_S)["steps"] == len(expected)
    assert logged_steps(out) == expected


def drain(nodes: Nodes, node: Any, seconds: int) -> None:
    """Announce to Ray that the node will leave, as a spot notice does."""
    reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"]
    target = [f"--address={nodes.address}", f"--node-id={node.node_id}"]
    command = [
        str(Path(sys.executable).with_name("ray")),
        "drain-node",
        *target,
        *reason,
        f"--deadline-remaining-seconds={seconds}",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_preemption_notice_saves_a_checkpoint_within_the_grace_period(
    nodes: Nodes, synthetic_shards: str, out: str
) -> None:
    pair, grace_s = [nodes.add(), nodes.add()], 90
    job = nodes.start(*arguments(synthetic_shards, out, "--set", *LONG))
    wait_while_running(job, lambda: num_completed_steps(out) > 0, "the first epoch", START_TIMEOUT_S)
    drain(nodes, next(node for node in pair if nodes.workers(node, WORKER)), grace_s)
    notice_time = time.monotonic()

    def mid_epoch_checkpoints() -> list[int]:
        return sorted(set(checkpoint_steps(out)) - epoch_end_steps(synthetic_shards))

    wait_until(lambda: bool(mid_epoch_checkpoints()), "a checkpoint within an epoch", grace_s)
    print(f"saved {time.monotonic() - notice_time:.1f} s after the notice")
    expected = planned(synthetic_shards, override(recipe("smoke"), LONG))
    assert finished(job, END_TIMEOUT_S)["steps"] == len(expected)
    assert len(mid_epoch_checkpoints()) == 1
    assert logged_steps(out) == expected


def checkpoint_steps(out: str) -> list[int]:
    return [
        int(name.removeprefix("log/step-").removesuffix(".jsonl")) for name in Folder(out).list_files("log/*")
    ]


def epoch_end_steps(shards: str) -> set[int]:
    """Steps of the run at which an epoch of a stage ends."""
    plan = override(recipe("smoke"), LONG)
    job = local_job(plan, shards, "unused")
    ends, before = set[int](), 0
    for stage, count in zip(plan.stages, job.steps, strict=True):
        epochs = (int(step / (count / stage.epochs)) for step in itertools.count())
        numbers = [next(epochs) for _ in range(count + 1)]
        ends |= {before + i for i in range(1, count + 1) if numbers[i] > numbers[i - 1] or i == count}
        before += count
    return ends
