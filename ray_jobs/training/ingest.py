"""Ray Data between the shards and the training workers: plan → read → decode, in order, uint8 to the end.

A row of the plan is a range of steps; a row of what comes out is one worker's share of one step. Rows
are handed to the workers in turn, so that a step's shares lie side by side and the order over all
workers depends on the seed alone.
"""

import itertools
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback

from ray_jobs.training.decode import decode, ranges, shares
from ray_jobs.training.job import STEPS_IN_FLIGHT, step_bytes
from stbir.config import Recipe
from stbir.data.batch import Batch, Encoded
from stbir.data.photo_index import Photos
from stbir.data.sampling import samples_an_epoch

log = logging.getLogger(__name__)
DECODERS = 2  # decode tasks at a time, for each worker on CPUs
ROUND_S = 0.05
PICTURES = ("sketches", "photos")
ROWS = ("photo", "sketch", "position")  # arrays of a worker's share
NUMBERS = ("stage", "number", "rows_a_sample")


class Pause(ExecutionCallback):  # type: ignore[misc]  # Ray has no types here
    """A pause in each round of Ray Data's scheduling, beside training on CPUs. Without one it spins while
    what is decoded waits for training to take it (Ray 2.60), and takes a core from the very training."""

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data in every round."""
        time.sleep(ROUND_S)


def keep_order() -> None:
    """Make this process, and what Ray Train starts from it, hand rows on in the order of the plan."""
    ray.data.DataContext.get_current().execution_options.preserve_order = True


def room(photos: Photos, recipe: Recipe, gpu: bool) -> ray.data.ExecutionResources:
    """What Ray Data may keep in the object store. Beside training on CPUs some steps, however long the run:
    to decode hours ahead would only take its cores. Beside GPUs what Ray Data gives itself."""
    limits = ray.data.ExecutionResources.for_limits
    if gpu:
        return limits()
    [first] = itertools.islice(shares(photos, recipe, workers=1, start=0, count=1), 1)
    read = sum(map(len, (*first.photos, *first.sketches)))  # camera pictures: far more than decoded
    return limits(object_store_memory=STEPS_IN_FLIGHT * max(read, step_bytes(recipe)))


def stream(photos: Photos, recipe: Recipe, done: int, workers: int, gpu: bool) -> ray.data.Dataset:
    """What a run still has to see after `done` steps: one row a worker and step, in order.

    `gpu`: whether the workers have GPUs, and leave the CPUs to decoding."""
    keep_order()
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # one row a block: a row is a worker's whole step
    context.enable_progress_bars = False
    if not gpu and Pause not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Pause)
    index = ray.put(photos)
    plan = ray.data.from_items(ranges(photos, recipe, done), override_num_blocks=1)
    rows = plan.map_batches(
        _read,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"photos": index, "recipe": recipe, "workers": workers, "spare": not gpu},
    )
    return rows.map_batches(
        _decode,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={
            "recipe": recipe,
            "an_epoch": [samples_an_epoch(photos, stage) for stage in recipe.stages],
            "spare": not gpu,
        },
        compute=ray.data.TaskPoolStrategy(None if gpu else _decoders(workers)),
    )


def _decoders(workers: int) -> int:
    """Decode tasks at a time beside training on CPUs: few, or they would take the cores it computes on.
    Beside GPUs as many as there are CPUs for, however many come."""
    return max(DECODERS, min(DECODERS * workers, int(ray.cluster_resources().get("CPU", 0)) - workers - 1))


def batches(shard: ray.data.DataIterator) -> Iterator[Batch]:
    """This worker's shares of the steps, in order."""
    for block in shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2):
        for row in range(len(block["rows_a_sample"])):
            # Ray's arrays are read-only views of the object store; tensors need their own.
            pictures = {name: np.array(block[name][row]) for name in PICTURES if name in block}
            yield Batch(
                int(block["stage"][row]),
                int(block["number"][row]),
                int(block["rows_a_sample"][row]),
                np.array(block["photo"][row]),
                np.array(block["sketch"][row]),
                pictures.get("sketches"),
                pictures.get("photos"),
                list(block["texts"][row]) if "texts" in block else None,
            )


def _read(
    plan: pa.Table, photos: ray.ObjectRef[Photos], recipe: Recipe, workers: int, spare: bool
) -> Iterator[pa.Table]:
    if spare:
        _in_idle_time()
    [row] = plan.to_pylist()
    for rows in shares(ray.get(photos), recipe, workers, **row):
        yield pa.table({name: [value] for name, value in vars(rows).items()})


def _decode(table: pa.Table, recipe: Recipe, an_epoch: list[int], spare: bool) -> dict[str, Any]:
    if spare:
        _in_idle_time()
    [row] = table.to_pylist()
    rows = Encoded(**row | {name: np.array(row[name]) for name in ROWS})
    batch = decode(rows, recipe, an_epoch)
    pictures = {name: getattr(batch, name) for name in PICTURES}
    present = {name: pixels[None] for name, pixels in pictures.items() if pixels is not None}
    numbers = {name: np.array([getattr(batch, name)]) for name in NUMBERS}
    texts = {"texts": [batch.texts]} if batch.texts else {}
    return {**numbers, "photo": batch.photo[None], "sketch": batch.sketch[None], **present, **texts}


def _in_idle_time() -> None:
    """Let this thread, and those it starts, have what training on CPUs leaves of them. Training's threads
    wait for one another, so that a moment taken from one is taken from all; and while they wait for data,
    there is time enough."""
    if not hasattr(os, "SCHED_IDLE"):  # Linux alone has it
        return
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:  # some sandboxes know one class alone: decoding is done all the same
        log.debug("decoding is not put behind training: %s", error)
