"""The linear projection from a backbone's width into the embedding."""

from torch import nn

PROJECTION_STD = 0.02  # weight N(0, 0.02), bias zero: [A] in docs/method.md


def build_projection(width: int, dim: int, allow_identity: bool = False) -> nn.Module:
    """Linear(width → dim), or the identity if allowed and the widths are equal."""
    if allow_identity and width == dim:
        return nn.Identity()
    linear = nn.Linear(width, dim)
    nn.init.normal_(linear.weight, std=PROJECTION_STD)
    nn.init.zeros_(linear.bias)
    return linear
