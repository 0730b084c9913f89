"""A gate learns which of a query's two modalities to trust, and is kept with its model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import fusion
from stbir.config import LossConstants
from stbir.embedding.queries import Embedded
from stbir.embedding.queries import queries as queries_of
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.model.fusion import Gate, fuse
from stbir.storage.folder import Folder
from stbir.training.gradients import Rows
from stbir.training.losses import stage_loss
from stbir.training.negatives import Keys
from stbir.training.stages import Learner

N, D = 24, 32
MODEL = replace(recipe("smoke").model, gate=8)


def queries(seed: int) -> tuple[Rows, torch.Tensor]:
    """Photos, and noisy sketches and texts of them; half the sketches are of nothing, and all look alike."""
    dice = torch.Generator().manual_seed(seed)
    photo, sketch, text = (torch.randn(N, D, generator=dice) for _ in range(3))
    nothing = torch.arange(N) % 2 == 0
    sketch = torch.where(nothing[:, None], torch.ones(D) + 0.3 * sketch, photo + 0.5 * sketch)
    rows: Rows = {"photo": photo, "sketch": sketch, "text": photo + 1.5 * text}
    return {modality: F.normalize(x, dim=-1) for modality, x in rows.items()}, nothing


def learnt(lr: float) -> Gate:
    """A gate after 150 steps at that rate."""
    torch.manual_seed(0)
    stage, learner = fusion(1, lr), Learner(build(MODEL), classes=0)
    learner.learn(stage)
    gate = learner.retriever.gate
    assert gate is not None
    optimizer = torch.optim.AdamW(gate.parameters(), lr=lr)
    numbers = torch.arange(N)
    for step in range(150):
        rows, _ = queries(step)
        terms = stage_loss(
            stage, LossConstants(), rows, Keys(numbers, numbers, numbers), None, learner.anchor
        )
        optimizer.zero_grad()
        terms["nce"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return gate.eval()


def test_it_learns_to_trust_the_text_where_the_sketch_shows_nothing() -> None:
    gate, numbers = learnt(1e-2), torch.arange(N)
    rows, nothing = queries(1000)
    with torch.no_grad():
        shift = gate(rows["sketch"], rows["text"])[:, 0]
        found = [
            (fuse(rows["sketch"], rows["text"], 0.5, each) @ rows["photo"].T).argmax(1) == numbers
            for each in (gate, None)
        ]
    assert shift[nothing].max() < shift[~nothing].min()
    assert found[0].sum() > found[1].sum()


def test_without_a_gate_in_an_experiment_means_the_plain_mean() -> None:
    lr = recipe("chairs_cpu_without_gate").stages[-1].lr
    assert lr is not None
    gate, (rows, _) = learnt(lr), queries(1000)
    assert gate(rows["sketch"], rows["text"]).abs().max() < 1e-6


def test_it_travels_in_the_checkpoint_and_loads_by_itself(tmp_path: Path) -> None:
    model = build(MODEL)
    assert model.gate is not None
    torch.nn.init.normal_(model.gate.layers[-1].weight)  # type: ignore[arg-type]
    r = replace(recipe("smoke"), model=MODEL)
    first = checkpoint.save(str(tmp_path), "step-1", model, r, made_from="", counts={})
    rows, _ = queries(0)
    expected = fuse(rows["sketch"], rows["text"], 0.5, model.gate.eval())
    again = checkpoint.load(str(tmp_path)).gate
    for name in ("sketch", "photo", "text"):
        (tmp_path / "step-1" / f"{name}.safetensors").unlink()
    for gate in (again, checkpoint.load(str(tmp_path), part="gate")):
        assert torch.equal(fuse(rows["sketch"], rows["text"], 0.5, gate), expected)

    torch.nn.init.zeros_(model.gate.layers[-1].weight)  # type: ignore[arg-type]
    other = checkpoint.save(str(tmp_path), "step-2", model, r, made_from="", counts={})
    assert other.digest != first.digest


def test_a_model_without_a_gate_has_none_to_load(tmp_path: Path) -> None:
    checkpoint.save(
        str(tmp_path), "step-1", build(recipe("smoke").model), recipe("smoke"), made_from="", counts={}
    )
    assert checkpoint.load(str(tmp_path), part="gate") is None
    assert not Folder(str(tmp_path)).exists("step-1/gate.safetensors")


def test_an_evaluation_asks_as_the_gate_weighs() -> None:
    rows, _ = queries(3)
    gate = Gate(D, 8)
    torch.nn.init.normal_(gate.layers[-1].weight)  # type: ignore[arg-type]
    numbers, names = np.arange(N), [str(number) for number in range(N)]
    photo, sketch, text = (rows[m].numpy() for m in ("photo", "sketch", "text"))
    embedded = Embedded(names, names, photo, sketch, numbers, text, numbers, gate)
    asked = queries_of(embedded, "per-sketch", 0.3)["sketch+text"].vectors_QD
    assert gate.training  # left as it was, and yet asked without dropout
    expected = fuse(rows["sketch"], rows["text"], 0.3, gate.eval()).detach().numpy()
    assert np.allclose(asked, expected, atol=1e-6)
    assert not np.allclose(asked, fuse(rows["sketch"], rows["text"], 0.3).numpy(), atol=1e-3)
