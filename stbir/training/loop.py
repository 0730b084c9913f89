"""The loop: load, encode, objective, backward, step, yield. It reports by yielding and saves nothing."""

import math
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from stbir.config import Recipe
from stbir.data.batch import Batch
from stbir.data.photo_index import Photos
from stbir.training.feature_cache import constant_features, measure_hubness
from stbir.training.gather import gather_features, gather_keys, rank
from stbir.training.gradients import Objective, Rows, Terms
from stbir.training.losses import stage_loss
from stbir.training.negatives import Keys
from stbir.training.optim import rate, set_rate
from stbir.training.stages import StageRun, inputs_of


class DivergedError(RuntimeError):
    """The loss or its gradient is not finite. The message names stage, step and photos; nothing was learnt
    from the step."""


@dataclass(frozen=True)
class Metrics:
    """One step: the loss, its weighted terms, and seconds spent waiting for data and working.

    `seen` is a CRC-32 of the global batch's photos, in order: steps that agree in it saw the same samples.
    """

    stage: str
    step: int
    loss: float
    terms: dict[str, float]
    lr: float
    waited_s: float
    worked_s: float
    seen: int


def train(
    run: StageRun, recipe: Recipe, photos: Photos, batches: Iterable[Batch], device: torch.device
) -> Iterator[Metrics]:
    """Train one stage on its batches, from `run.step` on, yielding metrics after each step."""
    measure_hubness(run, recipe, photos, device)
    constant = constant_features(run.learner.retriever, recipe, run.stage, photos, device)
    start = time.perf_counter()
    for batch in batches:
        waited = time.perf_counter() - start
        inputs = inputs_of(batch, run.learner.retriever, device)
        seed = step_seed(recipe.seed, batch.stage, batch.number, rank())
        run.optimizer.zero_grad(set_to_none=True)
        keys = _keys(batch, photos, device)
        objective = _objective(run, recipe, keys, batch, constant.of(batch))
        terms = run.backward(inputs, objective, device, seed)
        values = {name: term.item() for name, term in terms.items()}
        loss = _finite("the loss", sum(values.values()), run, photos, keys)
        factor = rate(run.step, run.steps, recipe.optimizer.warmup_ratio, recipe.optimizer.final_lr_ratio)
        set_rate(run.optimizer, factor)
        norm = torch.nn.utils.clip_grad_norm_(run.learner.parameters(), recipe.optimizer.grad_clip)
        _finite("the norm of its gradient", norm.item(), run, photos, keys)
        run.optimizer.step()
        run.step += 1
        worked = time.perf_counter() - start - waited
        lr = run.optimizer.param_groups[-1]["lr"]
        yield Metrics(run.stage.name, run.step, loss, values, lr, waited, worked, checksum(keys))
        start = time.perf_counter()


def checksum(keys: Keys) -> int:
    """A CRC-32 of the photos of a global batch, in order, drawn negatives aside."""
    return zlib.crc32(keys.photo[:: keys.rows_a_sample].cpu().numpy().tobytes())


def step_seed(*parts: int) -> int:
    """A seed for one worker's step: what is random in a tower (dropout) hangs on it alone, so a resumed
    run throws the same dice."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def _objective(run: StageRun, recipe: Recipe, keys: Keys, batch: Batch, known: Rows) -> Objective:
    """The terms of the stage's loss over the global batch, from one worker's features and those known."""

    def terms(features: Rows) -> Terms:
        # The gate throws dice over the global batch: the same ones on every worker, in chunks or not.
        torch.manual_seed(step_seed(recipe.seed, batch.stage, batch.number))
        everyones = {modality: gather_features(rows) for modality, rows in (features | known).items()}
        learner = run.learner
        return stage_loss(
            run.stage, recipe.loss_constants, everyones, keys, learner.classes_CD, learner.anchor
        )

    return terms


def _keys(batch: Batch, photos: Photos, device: torch.device) -> Keys:
    rows = (batch.photo, photos.text_key[batch.photo], photos.label[batch.photo])
    photo, text, label = (torch.from_numpy(row).to(device) for row in rows)
    return gather_keys(Keys(photo, text, label, batch.rows_a_sample))


def _finite(what: str, value: float, run: StageRun, photos: Photos, keys: Keys) -> float:
    """The value. Raises DivergedError where it is none to learn from; steps are counted as in the log."""
    if not math.isfinite(value):
        names = ", ".join(photos.ids[photo] for photo in keys.photo[:: keys.rows_a_sample].tolist())
        lr = "optimizer.lr" if run.stage.lr is None else f"stages.{run.stage.name}.lr"
        raise DivergedError(
            f"stage {run.stage.name}, step {run.step + 1}: {what} is {value}; its photos are {names};"
            f" lower the rate with --set {lr}=… into another --out"
        )
    return value
