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
    others = other_instances(keys)
    return others, others


def _class(keys: SampleKeys) -> Masks:
    """The triplet term uses negatives of the same class, or all if the batch has none for a sample."""
    others = other_instances(keys)
    label_B1 = keys.label[:: keys.rows_per_sample, None]
    same_class = others & (label_B1 == keys.label[None]) & (label_B1 >= 0)
    return others, torch.where(same_class.any(1, keepdim=True), same_class, others)


def _hard(keys: SampleKeys) -> Masks:
    """Both terms use only the hard negatives that follow a sample."""
    row_N = torch.arange(keys.photo.shape[0], device=keys.photo.device)
    sample_N, is_negative_N = row_N // keys.rows_per_sample, row_N % keys.rows_per_sample > 0
    own_BN = (sample_N[:: keys.rows_per_sample, None] == sample_N[None]) & is_negative_N[None]
    hard = own_BN & other_instances(keys)
    return hard, hard


KINDS: dict[str, Callable[[SampleKeys], Masks]] = {"batch": _batch, "class": _class, "hard": _hard}
