"""Decode a part photo by photo after its task died, and set aside the photos that kill or block a worker."""

import time
from typing import Any

import numpy as np
import ray
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError

from stbir.config import Preprocess
from stbir.data.validation import Fault
from stbir.embedding.decode import KILLS_WORKER, PHOTO_TIMED_OUT, DecodedPart, UnreadPart, decode_photos
from stbir.errors import JobFailedError
from stbir.images import Pixels

PHOTO_TIMEOUT_S = 60.0
_TOLERANCE_S = 1.0  # the driver sees a photo begin later than its worker, whose timer ends the process
STALL_TIMEOUT_S = 900
MAX_DEATHS = 3
_DEATHS = (WorkerCrashedError, OutOfMemoryError)
TASK_LOSSES = (*_DEATHS, NodeDiedError, ObjectLostError)


def stalled() -> JobFailedError:
    """The error of a job in which no photo was embedded for STALL_TIMEOUT_S."""
    minutes = STALL_TIMEOUT_S // 60
    return JobFailedError(
        f"no photo was embedded for {minutes} minutes; check for free CPUs, and that storage responds", {}
    )


def decode_isolated(
    catalogue: Any, unread: UnreadPart, preprocess: Preprocess, label_selector: dict[str, str] | None
) -> tuple[DecodedPart, Pixels]:
    """As `decode_part`, from the driver. `catalogue` is an object reference.

    A photo becomes a fault after MAX_DEATHS deaths of its worker, or after PHOTO_TIMEOUT_S. The loss of a
    node does not count. Raises JobFailedError if no photo is decoded for STALL_TIMEOUT_S.
    """
    # Ray starts a photo only after the result of the one before has arrived, so that a death has one cause.
    task = ray.remote(num_cpus=1, num_returns="streaming", max_retries=0)(decode_photos).options(
        label_selector=label_selector, _generator_backpressure_num_objects=1
    )
    results: list[tuple[DecodedPart, Pixels]] = []
    deaths, progressed = 0, time.monotonic()
    photo_ids = unread.part.ids
    while len(results) < len(photo_ids):
        start, fault = len(results), None
        args = (catalogue, unread, preprocess, start, PHOTO_TIMEOUT_S)
        died_after_s = _collect(task.remote(*args), results)
        if len(results) > start:
            deaths, progressed = 0, time.monotonic()
        if died_after_s is not None and len(results) < len(photo_ids):
            deaths += 1
            fault = _fault(photo_ids[len(results)], died_after_s, deaths)
        if fault is not None:
            pixels_0 = np.empty((0, 3, preprocess.size, preprocess.size), np.uint8)
            results.append((DecodedPart(faults=[fault]), pixels_0))
            deaths = 0
        if time.monotonic() - progressed > STALL_TIMEOUT_S:
            raise stalled()
    decoded, pixels = zip(*results, strict=True)
    return DecodedPart.merge(decoded), np.concatenate(pixels)


def _collect(stream: Any, results: list[tuple[DecodedPart, Pixels]]) -> float | None:
    """Append the results of a task until it ends. If its worker died with a photo, returns the seconds since
    it began to read that photo, else None."""
    began: float | None = None
    try:
        while True:
            ready, _ = ray.wait([stream], timeout=STALL_TIMEOUT_S)
            if not ready:
                raise stalled()
            result = ray.get(next(stream))
            began = time.monotonic()
            if result is not None:  # the first result only tells that the task has started
                results.append(result)
    except StopIteration:
        return None
    except _DEATHS:
        return None if began is None else time.monotonic() - began
    except TASK_LOSSES:
        return None


def _fault(photo_id: str, died_after_s: float | None, deaths: int) -> Fault | None:
    if died_after_s is not None and died_after_s >= PHOTO_TIMEOUT_S - _TOLERANCE_S:
        return Fault(photo_id, PHOTO_TIMED_OUT, detail=f"not decoded within {PHOTO_TIMEOUT_S:.0f} s")
    if deaths == MAX_DEATHS:
        return Fault(photo_id, KILLS_WORKER, detail=f"{deaths} workers crashed or ran out of memory on it")
    return None
