"""Folding of fixed batch norms into the convolutions before them.

The function stays the same and saves a pass over each feature map, forward and backward.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stbir.errors import InputError

_TOLERANCE = 1e-3  # relative to the largest output; sums are computed in another order


def fold_batch_norms(backbone: nn.Module, sample: Tensor) -> None:
    """Fold all batch norms of `backbone` in place. Weights and biases of the convolutions stay trainable.

    A norm is folded into the convolution directly before it in the same block. The output for `sample`
    (B, 3, H, W) must stay the same. Raises InputError if it does not, or if a norm follows no convolution.
    """
    backbone.eval()
    with torch.no_grad():
        before = backbone(sample)
        for block in list(backbone.modules()):
            _fold_children(block)
        after = backbone(sample)
    unfolded = [name for name, module in backbone.named_modules() if isinstance(module, _BatchNorm)]
    if unfolded or (after - before).abs().max() > _TOLERANCE * before.abs().max().clamp(min=1):
        reason = (
            f"{unfolded[0]} follows no convolution" if unfolded else "its norms are applied in another order"
        )
        raise InputError(f"model: batch_norm: cannot fold this backbone ({reason}); set batch_norm=fixed")


def _fold_children(block: nn.Module) -> None:
    children = list(block.named_children())
    for (name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm):
            setattr(block, name, fuse_conv_bn_eval(conv, norm))
            setattr(block, norm_name, _activation(norm))


def _activation(norm: nn.Module) -> nn.Module:
    """The dropout and activation that timm's norms contain; empty for those of torch."""
    parts = [part for name in ("drop", "act") if (part := getattr(norm, name, None)) is not None]
    return nn.Sequential(*(part for part in parts if not isinstance(part, nn.Identity)))
