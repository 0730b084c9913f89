"""AdamW with two learning rates, and the learning rate schedule as a function of the step."""

import math

from torch import nn
from torch.optim import AdamW, Optimizer

from stbir.config import OptimizerConfig


def adamw(config: OptimizerConfig, model: nn.Module) -> AdamW:
    """AdamW over the trainable parameters; image backbones have `backbone_lr_ratio` times the rate.

    Learnt temperatures have no weight decay, as in CLIP.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    temperature = [p for name, p in named if name.endswith("logit_scale_P")]
    backbone = [p for name, p in named if _is_image_backbone(name)]
    others = [p for name, p in named if not (_is_image_backbone(name) or name.endswith("logit_scale_P"))]
    groups = [
        {"params": params, "lr": lr, "base": lr, "weight_decay": decay}
        for params, lr, decay in (
            (temperature, config.lr, 0.0),
            (backbone, config.lr * config.backbone_lr_ratio, config.weight_decay),
            (others, config.lr, config.weight_decay),
        )
        if params
    ]
    return AdamW(groups, fused=True)


def _is_image_backbone(name: str) -> bool:
    return ".trunk." in name and ".text." not in name


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each group to its initial rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor


def lr_factor(step: int, num_steps: int, warmup: float, final: float) -> float:
    """Linear warm-up over the share `warmup` of the steps, then half a cosine from 1 down to `final`."""
    warmup_steps = max(1, round(warmup * num_steps)) if warmup else 0
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
