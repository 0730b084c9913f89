"""Masks of negatives: (B, N), true if candidate j is a negative of sample i."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleKeys:
    """Identity of the N rows of a global batch: equal numbers mean an equal photo, caption or class.

    Tensors are (N,), int64; -1 is unknown. A sample is followed by its `rows_per_sample - 1` hard negatives.
    """

    photo: Tensor
    text: Tensor
    label: Tensor
    rows_per_sample: int = 1


Masks = tuple[Tensor, Tensor]


def negative_masks(kind: str, keys: SampleKeys) -> Masks:
    """The masks for InfoNCE and for the triplet term, each (B, N). `kind` is a pair's `candidates`."""
    return KINDS[kind](keys)


def other_instances(keys: SampleKeys) -> Tensor:
    """(B, N): another photo with another caption. An equal caption would be a false negative."""
    other_photo_BN = keys.photo[:: keys.rows_per_sample, None] != keys.photo[None]
    text_B1 = keys.text[:: keys.rows_per_sample, None]
    same_text_BN = (text_B1 == keys.text[None]) & (text_B1 >= 0)
    return other_photo_BN & ~same_text_BN


def _batch(keys: SampleKeys) -> Masks:
    """Both terms use the other samples, without the hard negatives that other pairs may need."""
    others = other_instances(keys) & ~_hard_rows(keys)
    return others, others


def _class(keys: SampleKeys) -> Masks:
    """The triplet term uses negatives of the same class, or all if the batch has none for a sample."""
    others, _ = _batch(keys)
    label_B1 = keys.label[:: keys.rows_per_sample, None]
    same_class = others & (label_B1 == keys.label[None]) & (label_B1 >= 0)
    return others, torch.where(same_class.any(1, keepdim=True), same_class, others)


def _batch_and_hard(keys: SampleKeys) -> Masks:
    """InfoNCE uses all rows. The triplet term, a mean, uses the sample's own hard negatives."""
    return other_instances(keys), _hard(keys)[1]


def _hard(keys: SampleKeys) -> Masks:
    """Both terms use only the hard negatives that follow a sample."""
    sample_N = torch.arange(keys.photo.shape[0], device=keys.photo.device) // keys.rows_per_sample
    own_BN = sample_N[:: keys.rows_per_sample, None] == sample_N[None]
    hard = own_BN & _hard_rows(keys) & other_instances(keys)
    return hard, hard


def _hard_rows(keys: SampleKeys) -> Tensor:
    """(N,): whether the row is a hard negative, not a sample."""
    return torch.arange(keys.photo.shape[0], device=keys.photo.device) % keys.rows_per_sample > 0


KINDS: dict[str, Callable[[SampleKeys], Masks]] = {
    "batch": _batch,
    "class": _class,
    "batch+hard": _batch_and_hard,
    "hard": _hard,
}
