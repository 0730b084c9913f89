"""What leads from a trunk's width into the common space."""

from torch import nn

PROJECTION_STD = 0.02  # weight N(0, 0.02), bias zero: [A] in docs/method.md


def projection(width: int, dim: int, keep: bool) -> nn.Module:
    """Linear(width → dim); the identity where `keep` says an equal width needs none."""
    if keep and width == dim:
        return nn.Identity()
    linear = nn.Linear(width, dim)
    nn.init.normal_(linear.weight, std=PROJECTION_STD)
    nn.init.zeros_(linear.bias)
    return linear
