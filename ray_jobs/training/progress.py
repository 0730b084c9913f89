"""What a person sees of a training run: its plan, and a line an epoch, on standard error."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.util.queue import Empty, Queue

from ray_jobs.training.job import Job


def say_plan(job: Job, done: int) -> None:
    """How many photos and steps, and where the run stands after `done` steps."""
    stages = ", ".join(
        f"{s.name} ({steps} steps)" for s, steps in zip(job.recipe.stages, job.steps, strict=True)
    )
    print(f"{job.recipe.name}: {len(job.photos)} photos; stages {stages}", file=sys.stderr)
    if job.recipe.stages[0].name == "pretrain":
        print("no pretrained CLIP: stage clip first aligns photos and captions", file=sys.stderr)
    if job.photos.aux.any():
        taking = ", ".join(stage.name for stage in job.recipe.stages if stage.aux) or "none"
        print(
            f"{job.photos.aux.sum()} photos are of other data sets; stages that take them: {taking}",
            file=sys.stderr,
        )
    if done:
        print(f"going on from step {done} of {sum(job.steps)}", file=sys.stderr)


@contextmanager
def printing(progress: Queue) -> Iterator[None]:
    """Print the workers' lines while the run lasts."""
    over = threading.Event()
    printer = threading.Thread(target=_print_lines, args=(progress, over), daemon=True)
    printer.start()
    try:
        yield
    finally:
        over.set()
        printer.join()


def _print_lines(progress: Queue, over: threading.Event) -> None:
    while True:
        try:
            print(_readable(progress.get(timeout=1)), file=sys.stderr, flush=True)
        except Empty:
            if over.is_set():
                return


def _readable(line: dict[str, Any]) -> str:
    validation = "  ".join(f"{name} {value:.1f}" for name, value in line.items() if name.startswith("val "))
    return (
        f"{line['stage']:<8} epoch {line['epoch']:g}/{line['epochs']}  loss {line['loss']:.3f}"
        f"  {line['samples_per_s']:.0f} samples/s  waited {line['waited']:.0%}  {validation}"
    ).rstrip()
