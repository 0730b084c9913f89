"""The training loop: load, encode, loss, backward, step, yield metrics. It saves nothing itself."""

import math
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from stbir.config import Recipe
from stbir.data.batch import Batch
from stbir.data.photo_index import PhotoIndex
from stbir.training.device_transfer import to_device, to_host, with_inputs
from stbir.training.feature_cache import build_feature_cache
from stbir.training.gather import gather_features, gather_keys, rank
from stbir.training.gradients import InputTensors, LossFn, Terms
from stbir.training.losses import stage_loss
from stbir.training.negatives import SampleKeys
from stbir.training.optim import lr_factor, set_lr
from stbir.training.stages import StageRun, prepare_inputs


class DivergedError(RuntimeError):
    """NaN or infinite loss or gradient norm. The weights are those before the step."""


@dataclass(frozen=True)
class Metrics:
    """Metrics of one step: loss, weighted terms, learning rate, seconds waiting for inputs and computing.

    `seen` is a CRC-32 of the global batch's photos, in order. Equal values mean equal samples.
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
    run: StageRun, recipe: Recipe, photos: PhotoIndex, batches: Iterable[Batch], device: torch.device
) -> Iterator[Metrics]:
    """Train one stage on its batches, starting at `run.step`; yield metrics after each step."""
    model, optimizer, config = run.model, run.optimizer, run.stage.optimizer
    constant = recipe.constant(run.stage)
    cache = build_feature_cache(constant, model.retriever, recipe, run.stage, photos, device)
    prepare = partial(prepare_inputs, retriever=model.retriever, device=device)
    start = time.perf_counter()
    for batch, inputs in with_inputs(batches, prepare, device):
        waited_s = time.perf_counter() - start
        seed = step_seed(recipe.seed, batch.stage, batch.number, rank())
        optimizer.zero_grad(set_to_none=True)
        keys = _sample_keys(batch, photos, device)
        loss_fn = _loss_fn(run, recipe, keys, batch, cache.lookup(batch))
        terms = run.backward(inputs, loss_fn, device, seed)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        # The only wait for the device in a step: the weights must not change if a value is not finite.
        numbers, photo = to_host(torch.stack([*terms.values(), norm]), keys.photo)
        *values, norm_value = numbers.tolist()
        loss = _require_finite("loss", sum(values), run, photos, keys)
        _require_finite("gradient norm", norm_value, run, photos, keys)
        set_lr(optimizer, lr_factor(run.step, run.num_steps, config.warmup_ratio, config.final_lr_ratio))
        optimizer.step()
        run.step += 1
        worked_s = time.perf_counter() - start - waited_s
        lr, seen = optimizer.param_groups[-1]["lr"], checksum(photo[:: keys.rows_per_sample])
        by_term = dict(zip(terms, values, strict=True))
        yield Metrics(run.stage.name, run.step, loss, by_term, lr, waited_s, worked_s, seen)
        start = time.perf_counter()


def checksum(photo: Tensor) -> int:
    """A CRC-32 of the photos of a global batch (B,), on the host, in order, without hard negatives."""
    return zlib.crc32(photo.numpy().tobytes())


def step_seed(*parts: int) -> int:
    """A seed that depends on `parts` alone, so a resumed run draws the same dropout masks."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def _loss_fn(run: StageRun, recipe: Recipe, keys: SampleKeys, batch: Batch, cached: InputTensors) -> LossFn:
    """The loss terms over the global batch, from one worker's encoded and cached features."""

    def loss_fn(features: InputTensors) -> Terms:
        # The gate's dropout mask must be the same on every worker, with and without chunks.
        torch.manual_seed(step_seed(recipe.seed, batch.stage, batch.number))
        gathered = {modality: gather_features(rows) for modality, rows in (features | cached).items()}
        weight, anchor, temperature = run.model.class_weight_CD, run.model.anchor, run.model.temperature()
        return stage_loss(run.stage, recipe.loss_constants, gathered, keys, weight, anchor, temperature)

    return loss_fn


def _sample_keys(batch: Batch, photos: PhotoIndex, device: torch.device) -> SampleKeys:
    rows = (batch.photo, photos.text_key[batch.photo], photos.label[batch.photo])
    photo, text, label = (to_device(torch.from_numpy(row), device) for row in rows)
    return gather_keys(SampleKeys(photo, text, label, batch.rows_per_sample))


def _require_finite(name: str, value: float, run: StageRun, photos: PhotoIndex, keys: SampleKeys) -> float:
    """Return the value. Raises DivergedError, which names stage, step and photos, if it is not finite."""
    if not math.isfinite(value):
        ids = ", ".join(photos.ids[photo] for photo in keys.photo[:: keys.rows_per_sample].tolist())
        raise DivergedError(
            f"stage {run.stage.name}, step {run.step + 1}: the {name} is {value} for photos {ids}; lower the"
            f" learning rate with --set stages.{run.stage.name}.optimizer.lr=… and choose a new --out"
        )
    return value
