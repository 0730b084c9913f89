"""AdamW in two rates, and the schedule as a plain function of the step."""

import math

from torch import nn
from torch.optim import AdamW, Optimizer

from stbir.config import OptimizerConfig


def adamw(config: OptimizerConfig, learner: nn.Module, lr: float | None = None) -> AdamW:
    """AdamW over what learns: pretrained trunks of pictures at `trunk` times the rate of the rest."""
    rate = config.lr if lr is None else lr
    named = [(name, p) for name, p in learner.named_parameters() if p.requires_grad]
    slow = [p for name, p in named if _in_picture_trunk(name)]
    fast = [p for name, p in named if not _in_picture_trunk(name)]
    groups = [
        {"params": params, "lr": base, "base": base}
        for params, base in ((slow, rate * config.backbone_lr_ratio), (fast, rate))
        if params
    ]
    return AdamW(groups, weight_decay=config.weight_decay, fused=True)


def _in_picture_trunk(name: str) -> bool:
    return ".trunk." in name and ".text." not in name


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Every group's rate = its first rate × `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor


def rate(step: int, steps: int, warmup: float, final: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine from 1 down to `final`."""
    ramp = max(1, round(warmup * steps)) if warmup else 0
    if step < ramp:
        return (step + 1) / ramp
    progress = (step - ramp) / max(1, steps - ramp)
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
