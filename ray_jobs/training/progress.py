"""Progress of a training run on standard error: its plan, and one line an epoch."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.exceptions import RayError
from ray.util.queue import Empty, Queue

from ray_jobs.training.job import Job


def print_plan(job: Job, num_steps: int) -> None:
    """Print the number of photos, the stages and, for a resumed run, the `num_steps` it has completed."""
    stages = ", ".join(
        f"{s.name} ({steps} steps)" for s, steps in zip(job.recipe.stages, job.steps, strict=True)
    )
    lines = [f"{job.recipe.name}: {len(job.photos)} photos; stages {stages}"]
    if job.recipe.stages[0].name == "pretrain":
        lines += ["no pretrained CLIP: stage pretrain first aligns photos and captions"]
    if job.photos.aux.any():
        aux_stages = ", ".join(stage.name for stage in job.recipe.stages if stage.sampling.aux) or "none"
        lines += [f"{job.photos.aux.sum()} photos are auxiliary; stages that use them: {aux_stages}"]
    lines += [_validation_plan(job)]
    if num_steps:
        lines += [f"resuming after step {num_steps} of {sum(job.steps)}"]
    print(*lines, sep="\n", file=sys.stderr)


def _validation_plan(job: Job) -> str:
    if job.validation is None:
        return "no validation: the checkpoint of the last epoch is published"
    return f"validation on {job.validation.name}; the {job.select} epoch's checkpoint is published"


@contextmanager
def print_progress(progress: Queue) -> Iterator[None]:
    """Print the workers' epoch summaries while the body runs."""
    stopped = threading.Event()
    printer = threading.Thread(target=_print_lines, args=(progress, stopped), daemon=True)
    printer.start()
    try:
        yield
    finally:
        stopped.set()
        printer.join()


def _print_lines(progress: Queue, stopped: threading.Event) -> None:
    while True:
        try:
            print(_format(progress.get(timeout=1)), file=sys.stderr, flush=True)
        except Empty:
            if stopped.is_set():
                return
        except RayError:  # an interrupt ends Ray first; if the queue is lost otherwise, the workers fail, too
            return


def _format(line: dict[str, Any]) -> str:
    if "warning" in line:
        return f"warning: {line['warning']}"
    if "restored for" in line:
        return (
            f"{line['restored for']}: starts from {line['stage']} epoch {line['epoch']:g}, the best so far"
            f" (mean MRR {line['mrr']:.1f})"
        )
    return (
        f"{line['stage']:<8} epoch {line['epoch']:g}/{line['epochs']}  loss {line['loss']:.3f}"
        f"  {line['samples_per_s']:.0f} samples/s  waited {line['waited']:.0%}  {_scores(line['validation'])}"
    ).rstrip()


def _scores(scores: dict[str, Any] | None) -> str:
    if scores is None:
        return ""
    accuracy = "  ".join(f"{kind} {percent:.1f}" for kind, percent in scores["acc@1"].items())
    return f"val acc@1: {accuracy}  mean MRR {scores['mrr']:.1f}"
