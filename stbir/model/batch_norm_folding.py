"""Batch norms that keep their statistics, folded into the convolutions before them: the same function, with a
pass over each map less, forward and back."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stbir.errors import InputError

_AGREE = 1e-3  # of the largest output: the order of sums differs


def fold_batch_norms(trunk: nn.Module, sample: Tensor) -> None:
    """Fold every batch norm of `trunk` in place; from then on weights and shifts of convolutions learn.

    A norm belongs to the convolution that stands before it in its block. `sample` (B, 3, H, W) shows that
    the function is still the same. Raises InputError where it is not, or where a norm stands alone.
    """
    trunk.eval()
    with torch.no_grad():
        before = trunk(sample)
        for block in list(trunk.modules()):
            _fold_children(block)
        after = trunk(sample)
    left = [name for name, module in trunk.named_modules() if isinstance(module, _BatchNorm)]
    if left or (after - before).abs().max() > _AGREE * before.abs().max().clamp(min=1):
        where = f"{left[0]} follows no convolution" if left else "its norms are used in another order"
        raise InputError(f"model: batch_norm: this trunk cannot be folded ({where}); leave it at fixed")


def _fold_children(block: nn.Module) -> None:
    children = list(block.named_children())
    for (name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm):
            setattr(block, name, fuse_conv_bn_eval(conv, norm))
            setattr(block, norm_name, _what_follows(norm))


def _what_follows(norm: nn.Module) -> nn.Module:
    """timm's norms have their activation inside; torch's have none."""
    parts = [part for name in ("drop", "act") if (part := getattr(norm, name, None)) is not None]
    return nn.Sequential(*(part for part in parts if not isinstance(part, nn.Identity)))
