"""Ray Data pipeline from shards to training workers: plan → read → decode, in order, uint8 throughout.

A row of the plan is a range of steps with its samples, read by one task. An output row is one worker's share
of one step. The shares of a step are consecutive rows, distributed to the workers in turn, so the sample
order depends on the seed alone.
"""

import os
import pickle
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from ray_jobs.training.decode import decode_share, read_shares, step_ranges
from ray_jobs.training.job import STEPS_IN_FLIGHT, step_bytes
from stbir.config import VIEWS, Recipe
from stbir.data.batch import Batch, EncodedBatch
from stbir.data.photo_index import PhotoIndex
from stbir.data.sampling import iter_steps, samples_per_epoch

NUM_DECODERS = 2  # concurrent decode tasks per CPU worker
NUM_GPU_READERS = 4  # concurrent read tasks beside training on GPUs
SCHEDULER_PAUSE_S = 0.05
IMAGE_COLUMNS = ("sketches", "photos")
ARRAY_COLUMNS = ("photo", "sketch", "position")
SCALAR_COLUMNS = ("stage", "number", "rows_per_sample")


class SchedulerPause:
    """Sleeps in each round of Ray Data's scheduler, which busy-waits while decoded rows wait for training.

    When training on CPUs, that would take a core from it (Ray 2.60). The base class of these callbacks is
    private, so its other methods are here too.
    """

    def on_execution_step(self, executor: object) -> None:
        """Called by Ray Data in each round."""
        time.sleep(SCHEDULER_PAUSE_S)

    def before_execution_starts(self, *_: object) -> None:
        """Does nothing."""

    after_execution_succeeds = after_execution_fails = before_execution_starts


def preserve_order() -> None:
    """Keep rows in the order of the plan, in this process and those that Ray Train starts from it."""
    ray.data.DataContext.get_current().execution_options.preserve_order = True


def resource_limits(photos: PhotoIndex, recipe: Recipe, gpu: bool) -> ray.data.ExecutionResources:
    """Limits of Ray Data's object store use: STEPS_IN_FLIGHT steps when training on CPUs.

    Decoding further ahead would take CPU time from training. With GPUs, Ray Data's own limits apply.
    """
    for_limits = ray.data.ExecutionResources.for_limits
    if gpu:
        return for_limits()
    [share] = read_shares(photos, recipe, 1, [next(iter_steps(photos, recipe))])
    encoded_bytes = sum(
        map(len, (*share.photos, *share.sketches, *share.other_sketches))
    )  # camera photos exceed decoded ones
    return for_limits(object_store_memory=STEPS_IN_FLIGHT * max(encoded_bytes, step_bytes(recipe)))


def build_dataset(
    photos: PhotoIndex, recipe: Recipe, start: int, num_workers: int, gpu: bool
) -> ray.data.Dataset:
    """The remaining steps of a run from `start` on: one row per worker and step, in order.

    `gpu`: whether workers have GPUs, so that decode tasks may use all CPUs.
    """
    preserve_order()
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # bytes: one row per block, because a row is a worker's complete step
    context.enable_progress_bars = False
    if not gpu and SchedulerPause not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(SchedulerPause)
    shared = {"recipe": recipe, "low_priority": not gpu}
    index = {"photos": ray.put(photos)}
    # Ray Data would fuse tasks of equal resources and pool sizes into one, which reads and decodes the run.
    plan = ray.data.from_items([{"start": start}]).map_batches(
        _plan, batch_format="numpy", fn_kwargs={**index, "recipe": recipe}, num_cpus=0
    )
    rows = plan.map_batches(
        _read,
        batch_size=1,
        batch_format="numpy",
        fn_kwargs={**shared, **index, "num_workers": num_workers},
        compute=ray.data.TaskPoolStrategy(NUM_GPU_READERS if gpu else 1),
    )
    epoch_sizes = [samples_per_epoch(photos, stage) for stage in recipe.stages]
    return rows.map_batches(
        _decode,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={**shared, "epoch_sizes": epoch_sizes},
        compute=ray.data.TaskPoolStrategy(None if gpu else _num_decoders(num_workers)),
    )


def _num_decoders(num_workers: int) -> int:
    """Concurrent decode tasks when training on CPUs; few, because they share the cores with training."""
    free_cpus = int(ray.cluster_resources().get("CPU", 0)) - num_workers - 1
    return max(NUM_DECODERS, min(NUM_DECODERS * num_workers, free_cpus))


def iter_batches(shard: ray.data.DataIterator) -> Iterator[Batch]:
    """This worker's shares of the steps, in order."""
    for block in shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2):
        for row in range(len(block["rows_per_sample"])):
            # Ray's arrays are read-only views of the object store; tensors need their own memory.
            images = {name: np.array(block[name][row]) for name in IMAGE_COLUMNS if name in block}
            yield Batch(
                int(block["stage"][row]),
                int(block["number"][row]),
                int(block["rows_per_sample"][row]),
                np.array(block["photo"][row]),
                np.array(block["sketch"][row]),
                images.get("sketches"),
                images.get("photos"),
                list(block["texts"][row]) if "texts" in block else None,
                {view: np.array(block[view][row]) for view in VIEWS if view in block},
            )


def _plan(
    first: dict[str, Any], photos: ray.ObjectRef[PhotoIndex], recipe: Recipe
) -> Iterator[dict[str, Any]]:
    [start] = first["start"].tolist()
    for steps in step_ranges(ray.get(photos), recipe, start):
        yield {"steps": [pickle.dumps(steps)]}


def _read(
    plan: dict[str, Any],
    photos: ray.ObjectRef[PhotoIndex],
    recipe: Recipe,
    num_workers: int,
    low_priority: bool,
) -> Iterator[pa.Table]:
    if low_priority:
        _lower_priority()
    [steps] = plan["steps"]
    for share in read_shares(ray.get(photos), recipe, num_workers, pickle.loads(steps)):
        yield pa.table({name: [value] for name, value in vars(share).items()})


def _decode(table: pa.Table, recipe: Recipe, epoch_sizes: list[int], low_priority: bool) -> dict[str, Any]:
    if low_priority:
        _lower_priority()
    [row] = table.to_pylist()
    share = EncodedBatch(**row | {name: np.array(row[name]) for name in ARRAY_COLUMNS})
    batch = decode_share(share, recipe, epoch_sizes)
    images = {name: getattr(batch, name) for name in IMAGE_COLUMNS} | batch.views
    columns = {name: pixels[None] for name, pixels in images.items() if pixels is not None}
    columns |= {name: np.array([getattr(batch, name)]) for name in SCALAR_COLUMNS}
    texts = {"texts": [batch.texts]} if batch.texts else {}
    return {**columns, "photo": batch.photo[None], "sketch": batch.sketch[None], **texts}


def _lower_priority() -> None:
    """Run this thread, and those it starts, only on idle cores (SCHED_IDLE).

    Training threads wait for each other, so preempting one of them delays all.
    """
    with suppress(AttributeError, OSError):  # Linux only; some sandboxes allow no other scheduling policy
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
