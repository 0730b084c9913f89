"""One training and what came of it, in one process: the unit of an experiment."""

import hashlib
import itertools
import json
import time
from dataclasses import dataclass
from typing import Any

import torch

from ray_jobs.training.class_labels import indexed
from ray_jobs.training.decode import local
from stbir.config import Recipe
from stbir.config.recipe_json import to_json
from stbir.data.photo_index import Photos
from stbir.data.sampling import steps_of
from stbir.data.shards import open_shards
from stbir.embedding.queries import embed
from stbir.evaluation.evaluate import evaluate_embedded
from stbir.evaluation.robustness import robustness
from stbir.model.builder import build
from stbir.training.loop import train
from stbir.training.stages import Learner, start_stage


@dataclass(frozen=True)
class Trial:
    """Train `recipe` (its seed included) on every fold but `fold`, ask with that one.

    `shards` are the URIs of the data set with the folds and of others, `data` their digests.
    """

    recipe: Recipe
    shards: tuple[str, ...]
    data: tuple[str, ...]
    folds: tuple[str, ...]
    fold: str

    @property
    def key(self) -> str:
        """A digest of all that decides its result but the code."""
        known = json.dumps([to_json(self.recipe), self.data, self.folds, self.fold])
        return f"sha256:{hashlib.sha256(known.encode()).hexdigest()}"

    @property
    def name(self) -> str:
        """What its result is kept under."""
        return f"{self.recipe.name}-{self.fold}-seed{self.recipe.seed}"


def run_trial(trial: Trial) -> dict[str, Any]:
    """The figures of `Evaluation.as_dict`, `robustness`, and how long training took in seconds."""
    recipe, [shards, *aux] = trial.recipe, map(open_shards, trial.shards)
    splits = [fold for fold in trial.folds if fold != trial.fold]
    photos, classes = indexed(recipe, shards, splits, aux)
    start = time.perf_counter()
    learner = _trained(recipe, photos, len(classes))
    seconds = round(time.perf_counter() - start)
    embedded = embed(learner.retriever, shards.rows(trial.fold))
    poor = robustness(learner.retriever, embedded, shards.rows(trial.fold))
    facts = {"recipe": recipe.name, "fold": trial.fold, "seed": recipe.seed, "seconds": seconds}
    return {**facts, **evaluate_embedded(embedded).as_dict(), "robustness": poor.as_dict()}


def _trained(recipe: Recipe, photos: Photos, classes: int) -> Learner:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    learner = Learner(build(recipe.model, recipe.seed), classes).to(device)
    batches = local(photos, recipe)
    for stage in recipe.stages:
        count = steps_of(photos, stage, recipe.batch_size)
        own = itertools.islice(batches, count)
        for _ in train(start_stage(stage, recipe, learner, count), recipe, photos, own, device):
            pass
    return learner
