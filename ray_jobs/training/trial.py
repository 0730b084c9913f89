"""One trial of an experiment: training and evaluation of a recipe on one fold, in one process."""

import hashlib
import itertools
import json
import time
from dataclasses import dataclass
from typing import Any

import torch

from ray_jobs.training.class_labels import index_photos_with_labels
from ray_jobs.training.decode import iter_local_batches
from stbir.config import Recipe
from stbir.config.recipe_json import to_json
from stbir.data.photo_index import PhotoIndex
from stbir.data.sampling import num_stage_steps
from stbir.data.shards import open_shards
from stbir.embedding.calibration import calibrate
from stbir.embedding.queries import embed
from stbir.evaluation.evaluate import evaluate_features
from stbir.evaluation.robustness import evaluate_robustness
from stbir.model.builder import build_retriever
from stbir.training.batch_norm import estimate_batch_norm
from stbir.training.class_head import start_class_head
from stbir.training.loop import train
from stbir.training.stages import TrainableModel, start_stage


@dataclass(frozen=True)
class Trial:
    """Trains `recipe`, with its seed, on all folds except `fold`, and evaluates on that fold.

    `shards` are the URIs of the data set with the folds and of auxiliary ones, `data` their digests.
    """

    recipe: Recipe
    shards: tuple[str, ...]
    data: tuple[str, ...]
    folds: tuple[str, ...]
    fold: str

    @property
    def key(self) -> str:
        """A digest of everything that determines the result, except the code."""
        inputs = json.dumps([to_json(self.recipe), self.data, self.folds, self.fold])
        return f"sha256:{hashlib.sha256(inputs.encode()).hexdigest()}"

    @property
    def name(self) -> str:
        """The name of its result file."""
        return f"{self.recipe.name}-{self.fold}-seed{self.recipe.seed}"


def run_trial(trial: Trial) -> dict[str, Any]:
    """Results of `evaluate_features` and `evaluate_robustness`, and seconds of training."""
    recipe, [shards, *aux] = trial.recipe, map(open_shards, trial.shards)
    splits = [fold for fold in trial.folds if fold != trial.fold]
    photos, classes = index_photos_with_labels(recipe, shards, splits, aux)
    start = time.perf_counter()
    model = _train_model(recipe, photos, len(classes))
    if recipe.calibrate:
        calibrate(model.retriever, recipe.model, photos)
    seconds = round(time.perf_counter() - start)
    features = embed(model.retriever, shards.iter_rows(trial.fold))
    robustness = evaluate_robustness(model.retriever, features, shards.iter_rows(trial.fold))
    trial_info = {"recipe": recipe.name, "fold": trial.fold, "seed": recipe.seed, "seconds": seconds}
    return {**trial_info, **evaluate_features(features).as_dict(), "robustness": robustness.as_dict()}


def _train_model(recipe: Recipe, photos: PhotoIndex, num_classes: int) -> TrainableModel:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    model = TrainableModel(build_retriever(recipe.model, recipe.seed), num_classes).to(device)
    batches = iter_local_batches(photos, recipe)
    for stage in recipe.stages:
        num_steps = num_stage_steps(photos, stage, recipe.batch_size)
        run = start_stage(stage, recipe, model, num_steps)
        start_class_head(run, recipe, photos, device)
        for _ in train(run, recipe, photos, itertools.islice(batches, num_steps), device):
            pass
        estimate_batch_norm(run, recipe, photos, device)
    return model
