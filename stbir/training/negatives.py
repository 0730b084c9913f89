"""Who may be a negative of whom, as masks: (B, N) true where candidate j is a negative of sample i."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Keys:
    """Who the N rows of a global batch are: whole numbers (N,), equal where photo / caption / class are.

    Rows come as samples, each followed by its `rows_a_sample - 1` drawn negatives. -1 is unknown.
    """

    photo: Tensor
    text: Tensor
    label: Tensor
    rows_a_sample: int = 1


Masks = tuple[Tensor, Tensor]


def masks(kind: str, keys: Keys) -> Masks:
    """The masks for InfoNCE and for the triplet term, each (B, N), of a stage's `negatives`."""
    return KINDS[kind](keys)


def other_instances(keys: Keys) -> Tensor:
    """(B, N): neither the same photo nor an equal caption, which would be a false negative."""
    other_photo_BN = keys.photo[:: keys.rows_a_sample, None] != keys.photo[None]
    text_B1 = keys.text[:: keys.rows_a_sample, None]
    same_text_BN = (text_B1 == keys.text[None]) & (text_B1 >= 0)
    return other_photo_BN & ~same_text_BN


def same_class(keys: Keys) -> Tensor:
    """(B, N): a known class in common."""
    label_B1 = keys.label[:: keys.rows_a_sample, None]
    return (label_B1 == keys.label[None]) & (label_B1 >= 0)


def own_negatives(keys: Keys) -> Tensor:
    """(B, N): the negatives drawn for that very sample."""
    n = keys.photo.shape[0]
    row_N = torch.arange(n, device=keys.photo.device)
    owner_N = row_N // keys.rows_a_sample
    return (owner_N[:: keys.rows_a_sample, None] == owner_N[None]) & (row_N % keys.rows_a_sample > 0)[None]


def _batch(keys: Keys) -> Masks:
    others = other_instances(keys)
    return others, others


def _class(keys: Keys) -> Masks:
    """Hard negatives share the class; a sample that has none in the batch takes all others."""
    others = other_instances(keys)
    hard_negatives = others & same_class(keys)
    return others, torch.where(hard_negatives.any(1, keepdim=True), hard_negatives, others)


def _stored(keys: Keys) -> Masks:
    drawn = own_negatives(keys) & other_instances(keys)
    return drawn, drawn


KINDS: dict[str, Callable[[Keys], Masks]] = {"batch": _batch, "class": _class, "stored": _stored}
