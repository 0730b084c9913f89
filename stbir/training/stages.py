"""A stage under way: who learns, with which optimiser, how far."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from stbir.config import MODALITIES, Modality, Recipe, Stage
from stbir.data.batch import Batch
from stbir.model.fusion import fuse, mean_anchor
from stbir.model.retriever import Retriever
from stbir.training.gradients import Backward, at_once, in_chunks
from stbir.training.optim import adamw


class Learner(nn.Module):
    """The retriever and the class head that learn together; `forward` encodes what a stage needs."""

    def __init__(self, retriever: Retriever, classes: int) -> None:
        super().__init__()
        self.retriever = retriever
        weight = torch.empty(classes, retriever.dim)
        self.classes_CD = nn.Parameter(nn.init.xavier_uniform_(weight)) if classes else None

    def forward(self, inputs: dict[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Pixels or tokens a modality → unit vectors (N, D) a modality; frozen towers without gradient."""
        return {modality: self._encode(modality, rows) for modality, rows in inputs.items()}

    def _encode(self, modality: Modality, rows: Tensor) -> Tensor:
        tower = self.retriever.tower(modality)
        with nullcontext() if tower.training else torch.no_grad():
            return tower(rows)  # type: ignore[no-any-return]

    def anchor(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """The anchor of some modalities, (N, D): their mean; of sketch and text, as a query is fused."""
        if self.retriever.gate is not None and features.keys() == {"sketch", "text"}:
            return fuse(features["sketch"], features["text"], gate=self.retriever.gate)
        return mean_anchor(list(features.values()))

    def learn(self, stage: Stage) -> None:
        """Let the stage's towers learn, with the class head; freeze the others entirely."""
        self.retriever.tie(stage.shared_encoder)
        for modality in MODALITIES:
            trainable = modality in stage.trainable
            tower = self.retriever.tower(modality)
            tower.learn(trainable, stage.frozen)
            tower.train(trainable)
        if self.retriever.gate is not None:
            self.retriever.gate.requires_grad_("gate" in stage.trainable).train("gate" in stage.trainable)
        if self.classes_CD is not None:
            self.classes_CD.requires_grad_(stage.weights.category > 0)


@dataclass
class StageRun:
    """A stage with its optimiser, and the way from inputs to gradients."""

    stage: Stage
    learner: Learner
    backward: Backward
    optimizer: AdamW
    step: int
    steps: int

    def state(self) -> dict[str, Any]:
        """What a later run needs to go on: tensors and plain values only."""
        return {
            "stage": self.stage.name,
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "classes": self.learner.classes_CD,
        }


def start_stage(
    stage: Stage, recipe: Recipe, learner: Learner, steps: int, state: dict[str, Any] | None = None
) -> StageRun:
    """Freeze and thaw for the stage, with a new optimiser; `state` (of `StageRun.state`) goes on from it."""
    learner.learn(stage)
    learner.zero_grad(set_to_none=True)  # what the stage before left would count in the clipping of gradients
    optimizer = adamw(recipe.optimizer, learner, stage.lr)
    if state:
        optimizer.load_state_dict(state["optimizer"])
    backward = (
        in_chunks(learner, recipe.chunk_size, stage.trainable) if recipe.chunk_size else at_once(learner)
    )
    return StageRun(stage, learner, backward, optimizer, state["step"] if state else 0, steps)


def inputs_of(batch: Batch, retriever: Retriever, device: torch.device) -> dict[Modality, Tensor]:
    """What the batch holds, on the device: uint8 pixels (N, C, H, W), token ids (N, L)."""
    inputs: dict[Modality, Tensor] = {}
    if batch.sketches is not None:
        inputs["sketch"] = torch.from_numpy(batch.sketches).to(device, non_blocking=True)
    if batch.photos is not None:
        inputs["photo"] = torch.from_numpy(batch.photos).to(device, non_blocking=True)
    if batch.texts is not None:
        inputs["text"] = retriever.text.tokenize(batch.texts).to(device, non_blocking=True)
    return inputs
