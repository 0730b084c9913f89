"""Features of towers that stand still and see the same inputs in every epoch: computed once a stage."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from stbir.config import MODALITIES, Modality, Recipe, Stage
from stbir.data.batch import Batch, decoded, encoded, read_places
from stbir.data.photo_index import UNKNOWN, Ints, Photos
from stbir.data.sampling import Order, Step, eligible, every
from stbir.model.retriever import Retriever
from stbir.training.gather import alone, rank
from stbir.training.gradients import Rows, autocast
from stbir.training.stages import StageRun, inputs_of


@dataclass(frozen=True)
class Constant:
    """Features (R, D) a modality: a row a sketch, or a row a photo. `first` (P,): a photo's first row."""

    features: Rows
    first: dict[Modality, Ints]

    def of(self, batch: Batch) -> Rows:
        """Those of the batch's samples, (N, D) a modality."""
        return {m: rows[_rows(self.first[m], m, batch)] for m, rows in self.features.items()}


def constant_features(
    retriever: Retriever, recipe: Recipe, stage: Stage, photos: Photos, device: torch.device
) -> Constant:
    """Encode what `recipe.constant` names, row group by row group; the workers share the groups.

    Which rows are encoded together hangs on the photos alone: a run that goes on gets the same bits.
    """
    return features_of(recipe.constant(stage), retriever, recipe, stage, photos, device)


@torch.no_grad()
def features_of(
    modalities: Iterable[Modality],
    retriever: Retriever,
    recipe: Recipe,
    stage: Stage,
    photos: Photos,
    device: torch.device,
) -> Constant:
    """The same of the given modalities, by towers as they stand, of pictures and words as they are."""
    chosen = eligible(photos, stage)
    places = np.unique(photos.place[chosen])[rank() :: 1 if alone() else dist.get_world_size()]
    constant = Constant({}, {})
    for modality in modalities:
        count = photos.sketches[chosen] if modality == "sketch" else np.ones_like(chosen)
        first = np.full(len(photos), UNKNOWN)
        first[chosen] = np.cumsum(count) - count
        features = torch.zeros(int(count.sum()), retriever.dim, device=device)
        for place in places:
            batch = _whole(photos, chosen[photos.place[chosen] == place], modality, recipe)
            inputs = torch.split(
                inputs_of(batch, retriever, device)[modality], recipe.chunk_size or recipe.batch_size
            )
            with autocast(device):
                encoded_here = torch.cat([retriever.tower(modality)(rows) for rows in inputs])
            features[_rows(first, modality, batch)] = encoded_here
        if not alone():
            dist.all_reduce(features)  # zeros but for each worker's own
        constant.first[modality], constant.features[modality] = first, features
    return constant


def measure_hubness(run: StageRun, recipe: Recipe, photos: Photos, device: torch.device) -> None:
    """Where the stage begins so: let the photo tower know what training asks (`model.hubness`)."""
    if run.stage.hubness and run.step == 0:
        retriever = run.learner.retriever
        found = features_of(MODALITIES, retriever, recipe, run.stage, photos, device)
        retriever.measure_hubness(found.features)


def _rows(first: Ints, modality: Modality, batch: Batch) -> torch.Tensor:
    return torch.from_numpy(first[batch.photo] + (batch.sketch if modality == "sketch" else 0))


def _whole(photos: Photos, members: Ints, modality: Modality, recipe: Recipe) -> Batch:
    """One modality of all `members` of a row group, as they are; of sketches, every one."""
    count = photos.sketches[members] if modality == "sketch" else np.ones_like(members)
    photo, sketch = every(members, count)
    order = Order(photo, sketch, np.empty((len(photo), 0), np.int64))
    groups = read_places(photos, [int(photos.place[members[0]])], (modality,))
    return decoded(
        encoded(photos, Step(0, 0, 0, order), (modality,), groups),
        sketch_size=recipe.model.sketch_size,
        photo_size=recipe.model.photo.preprocess.size,
        seed=recipe.seed,
    )
