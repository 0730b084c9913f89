"""Cache of the features that stay constant in a stage: frozen encoder, same inputs every epoch."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from stbir.config import Modality, Recipe, Stage
from stbir.data.batch import Batch
from stbir.data.photo_index import UNKNOWN, IntArray, PhotoIndex
from stbir.data.sampling import eligible_photos
from stbir.model.retriever import Retriever
from stbir.training.clean_inputs import iter_clean_batches
from stbir.training.device_transfer import to_device
from stbir.training.gather import is_distributed
from stbir.training.gradients import InputTensors, autocast
from stbir.training.stages import prepare_inputs


@dataclass(frozen=True)
class FeatureCache:
    """Features (R, D) of each modality, one row a sketch or photo. `first_row` (P,): first row of a photo."""

    features: dict[Modality, torch.Tensor]
    first_row: dict[Modality, IntArray]

    def lookup(self, batch: Batch) -> InputTensors:
        """The features of the batch's samples, (N, D) of each cached modality."""
        return {
            m: rows[to_device(_row_indices(self.first_row[m], m, batch), rows.device)]
            for m, rows in self.features.items()
        }


@torch.no_grad()
def build_feature_cache(
    modalities: Iterable[Modality],
    retriever: Retriever,
    recipe: Recipe,
    stage: Stage,
    photos: PhotoIndex,
    device: torch.device,
) -> FeatureCache:
    """Encode the stage's photos, sketches or captions, unaugmented; the workers share the row groups.

    The rows encoded together depend on the photos alone, so a resumed run gets identical features.
    """
    chosen = eligible_photos(photos, stage)
    cache = FeatureCache({}, {})
    for modality in modalities:
        count = photos.sketch_count[chosen] if modality == "sketch" else np.ones_like(chosen)
        first_row = np.full(len(photos), UNKNOWN)
        first_row[chosen] = np.cumsum(count) - count
        features = torch.zeros(int(count.sum()), retriever.dim, device=device)
        for batch in iter_clean_batches(photos, chosen, modality, recipe):
            inputs = prepare_inputs(batch, retriever, device)[modality]
            with autocast(device):
                chunks = torch.split(inputs, recipe.chunk_size or recipe.batch_size)
                encoded = torch.cat([retriever.encoder(modality)(chunk) for chunk in chunks])
            features[_row_indices(first_row, modality, batch)] = encoded
        if is_distributed():
            dist.all_reduce(features)  # the rows of other workers are zero
        cache.first_row[modality], cache.features[modality] = first_row, features
    return cache


def _row_indices(first_row: IntArray, modality: Modality, batch: Batch) -> torch.Tensor:
    return torch.from_numpy(first_row[batch.photo] + (batch.sketch if modality == "sketch" else 0))
