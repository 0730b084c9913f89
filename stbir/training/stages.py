"""A training stage in progress: trainable parts, optimizer, step."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from stbir.config import MODALITIES, MODALITY_OF, Input, Modality, Recipe, Stage
from stbir.data.batch import Batch
from stbir.model.fusion import fuse, mean_anchor
from stbir.model.retriever import Retriever
from stbir.training.device_transfer import to_device
from stbir.training.gradients import Backward, InputTensors, full_batch, gradient_cache
from stbir.training.optim import adamw

MIN_TEMPERATURE = 0.01  # as in CLIP (Radford et al., arXiv 2103.00020)


class TrainableModel(nn.Module):
    """The retriever and the class head. `forward` encodes the modalities of a batch."""

    def __init__(self, retriever: Retriever, num_classes: int) -> None:
        super().__init__()
        self.retriever = retriever
        weight = torch.empty(num_classes, retriever.dim)
        self.class_weight_CD = nn.Parameter(nn.init.xavier_uniform_(weight)) if num_classes else None
        self.logit_scale_P: nn.Parameter | None = None  # log(1 / τ) of the stage's pairs, if one is learnt

    def forward(self, inputs: InputTensors) -> InputTensors:
        """Pixels or tokens of each input → unit vectors (N, D); frozen encoders without gradient."""
        return {name: self._encode(MODALITY_OF[name], rows) for name, rows in inputs.items()}

    def _encode(self, modality: Modality, rows: Tensor) -> Tensor:
        encoder = self.retriever.encoder(modality)
        with nullcontext() if encoder.training else torch.no_grad():
            return encoder(rows)  # type: ignore[no-any-return]

    def anchor(self, features: Mapping[Input, Tensor]) -> Tensor:
        """The anchors (N, D): the mean of the inputs; sketch and text are fused as in a query."""
        if self.retriever.gate is not None and features.keys() == {"sketch", "text"}:
            return fuse(features["sketch"], features["text"], gate=self.retriever.gate)
        return mean_anchor(list(features.values()))

    def temperature(self) -> Tensor | None:
        """The learnt temperatures (P,) of the stage's pairs; None if all are fixed.

        Clamps the parameter, not its use, which would have no gradient beyond the limits (as open_clip).
        """
        if self.logit_scale_P is None:
            return None
        with torch.no_grad():
            self.logit_scale_P.clamp_(0, -math.log(MIN_TEMPERATURE))
        return torch.exp(-self.logit_scale_P)

    def load_class_weight(self, state: Mapping[str, Any] | None) -> None:
        """Take the class weights of a saved `StageRun.state`, if both have some."""
        if state is not None and self.class_weight_CD is not None:
            self.class_weight_CD.data.copy_(state["classes"])

    def set_stage(self, stage: Stage) -> None:
        """Make the parts of the stage trainable and freeze all others."""
        self.retriever.set_shared_encoder(stage.trainable.shared)
        for modality in MODALITIES:
            trainable = modality in stage.trainable.encoders
            encoder = self.retriever.encoder(modality)
            encoder.set_trainable(trainable, stage.trainable.frozen)
            encoder.train(trainable)
        if self.retriever.gate is not None:
            self.retriever.gate.requires_grad_(stage.trainable.gate).train(stage.trainable.gate)
        if self.class_weight_CD is not None:
            self.class_weight_CD.requires_grad_(stage.objective.category > 0)
        self.logit_scale_P = self._initial_logit_scale(stage)

    def _initial_logit_scale(self, stage: Stage) -> nn.Parameter | None:
        pairs = stage.objective.pairs
        if not any(pair.learn_temperature for pair in pairs):
            return None
        device = next(self.retriever.parameters()).device
        return nn.Parameter(-torch.tensor([pair.temperature for pair in pairs], device=device).log())


@dataclass
class StageRun:
    """A stage with its optimizer and backward function. `step` of `num_steps` are done."""

    stage: Stage
    model: TrainableModel
    backward: Backward
    optimizer: AdamW
    step: int
    num_steps: int

    def state(self) -> dict[str, Any]:
        """The state for resuming: tensors and plain values only."""
        return {
            "stage": self.stage.name,
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "classes": self.model.class_weight_CD,
            "logit_scale": self.model.logit_scale_P,
        }


def start_stage(
    stage: Stage, recipe: Recipe, model: TrainableModel, num_steps: int, state: dict[str, Any] | None = None
) -> StageRun:
    """Set up the model and a new optimizer for the stage; resume from `state` (`StageRun.state`) if given."""
    model.set_stage(stage)
    model.zero_grad(set_to_none=True)  # gradients of the stage before would count in gradient clipping
    optimizer = adamw(stage.optimizer, model)
    if state:
        optimizer.load_state_dict(state["optimizer"])
        if model.logit_scale_P is not None:
            model.logit_scale_P.data.copy_(state["logit_scale"])
    inputs, chunk_size = stage.trainable_inputs, recipe.chunk_size
    backward = gradient_cache(model, chunk_size, inputs) if chunk_size else full_batch(model)
    return StageRun(stage, model, backward, optimizer, state["step"] if state else 0, num_steps)


def prepare_inputs(batch: Batch, retriever: Retriever, device: torch.device) -> InputTensors:
    """The batch on the device: uint8 pixels (N, C, H, W), token ids (N, L)."""
    inputs: InputTensors = {}
    if batch.sketches is not None:
        inputs["sketch"] = to_device(torch.from_numpy(batch.sketches), device)
    if batch.photos is not None:
        inputs["photo"] = to_device(torch.from_numpy(batch.photos), device)
    if batch.texts is not None:
        inputs["text"] = to_device(retriever.text.tokenize(batch.texts), device)
    for view, pixels in batch.views.items():
        inputs[view] = to_device(torch.from_numpy(pixels), device)
    return inputs
