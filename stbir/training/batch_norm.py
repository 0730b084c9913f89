"""Precise statistics of batch norms that learn (Wu and Johnson, arXiv 2105.07576, section 3)."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from stbir.config import Modality, Recipe
from stbir.data.photo_index import PhotoIndex
from stbir.data.sampling import eligible_photos
from stbir.training.clean_inputs import iter_clean_batches
from stbir.training.gather import is_distributed
from stbir.training.gradients import autocast
from stbir.training.stages import StageRun, prepare_inputs

NUM_IMAGES = 2048  # of each modality, over all workers; more do not change the statistics noticeably
BatchNorm = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def estimate_batch_norm(run: StageRun, recipe: Recipe, photos: PhotoIndex, device: torch.device) -> None:
    """Replace the running statistics of the batch norms that the stage trains.

    Running averages of training lag behind the weights and contain augmentation and noise; a query has
    neither. The new statistics are means over batches of clean images, shared by the workers, and the
    same on all of them. Training continues unchanged, because it normalises with those of each batch.
    """
    for modality in run.stage.modalities:
        encoder = run.model.retriever.encoder(modality)
        norms = [module for module in encoder.modules() if isinstance(module, BatchNorm) and module.training]
        if norms:
            with _averaging(encoder, norms), autocast(device):
                for images in _clean_batches(run, recipe, photos, modality, device):
                    encoder(images)


@contextmanager
def _averaging(encoder: nn.Module, norms: list[BatchNorm]) -> Iterator[None]:
    """Let `norms` alone learn: the mean of the statistics of all batches, over all workers."""
    momenta = [norm.momentum for norm in norms]
    encoder.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = None
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if is_distributed():
            _average_over_workers(norm)
    encoder.train()


def _average_over_workers(norm: BatchNorm) -> None:
    count, mean, variance = norm.num_batches_tracked, norm.running_mean, norm.running_var
    if count is None or mean is None or variance is None:  # it keeps no statistics
        return
    own_count = count.clone()
    dist.all_reduce(count)
    for statistic in (mean, variance):
        statistic *= own_count
        dist.all_reduce(statistic)
        statistic /= count


def _clean_batches(
    run: StageRun, recipe: Recipe, photos: PhotoIndex, modality: Modality, device: torch.device
) -> Iterator[Tensor]:
    """This worker's share of the images, uint8, shuffled: neighbours in the shards are of one category."""
    chosen = eligible_photos(photos, run.stage)
    rng = np.random.default_rng(recipe.seed)
    mean_count = photos.sketch_count[chosen].mean() if modality == "sketch" else 1
    chosen = np.sort(rng.permutation(chosen)[: int(NUM_IMAGES / mean_count)])
    batches, cpu = iter_clean_batches(photos, chosen, modality, recipe), torch.device("cpu")
    images = [prepare_inputs(batch, run.model.retriever, cpu)[modality] for batch in batches]
    if images:
        shuffled = torch.cat(images)
        order = rng.permutation(len(shuffled))
        for rows in np.array_split(order, max(1, round(len(order) / recipe.batch_size))):
            yield shuffled[torch.from_numpy(rows)].to(device)
