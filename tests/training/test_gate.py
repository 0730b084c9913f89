"""The fusion gate learns which modality of a query to trust, and is saved in the checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import fusion
from stbir.config import LossConstants
from stbir.embedding.queries import SplitFeatures, make_queries
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.model.fusion import Gate, fuse
from stbir.storage.folder import Folder
from stbir.training.gradients import InputTensors
from stbir.training.losses import stage_loss
from stbir.training.negatives import SampleKeys
from stbir.training.stages import TrainableModel

N, D = 24, 32
MODEL = replace(recipe("smoke").model, gate=8)


def noisy_features(seed: int) -> tuple[InputTensors, torch.Tensor]:
    """Features of photos, sketches and texts, and a mask of the sketches that carry no information."""
    rng = torch.Generator().manual_seed(seed)
    photo, sketch, text = (torch.randn(N, D, generator=rng) for _ in range(3))
    is_empty = torch.arange(N) % 2 == 0
    sketch = torch.where(is_empty[:, None], torch.ones(D) + 0.3 * sketch, photo + 0.5 * sketch)
    rows: InputTensors = {"photo": photo, "sketch": sketch, "text": photo + 1.5 * text}
    return {modality: F.normalize(x, dim=-1) for modality, x in rows.items()}, is_empty


def train_gate(lr: float) -> Gate:
    """A gate after 150 steps."""
    torch.manual_seed(0)
    stage, model = fusion(1), TrainableModel(build_retriever(MODEL), num_classes=0)
    model.set_stage(stage)
    gate = model.retriever.gate
    assert gate is not None
    optimizer = torch.optim.AdamW(gate.parameters(), lr=lr)
    numbers = torch.arange(N)
    for step in range(150):
        rows, _ = noisy_features(step)
        terms = stage_loss(
            stage, LossConstants(), rows, SampleKeys(numbers, numbers, numbers), None, model.anchor
        )
        optimizer.zero_grad()
        terms["nce"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return gate.eval()


def test_gate_lowers_the_weight_of_sketches_that_carry_no_information() -> None:
    gate, numbers = train_gate(1e-2), torch.arange(N)
    rows, is_empty = noisy_features(1000)
    with torch.no_grad():
        shift = gate(rows["sketch"], rows["text"])[:, 0]
        top1_hits = [
            (fuse(rows["sketch"], rows["text"], 0.5, each) @ rows["photo"].T).argmax(1) == numbers
            for each in (gate, None)
        ]
    assert shift[is_empty].max() < shift[~is_empty].min()
    assert top1_hits[0].sum() > top1_hits[1].sum()


def test_gate_ablation_fuses_with_the_plain_mean() -> None:
    lr = recipe("chairs_cpu_without_gate").stages[-1].optimizer.lr
    gate, (rows, _) = train_gate(lr), noisy_features(1000)
    assert gate(rows["sketch"], rows["text"]).abs().max() < 1e-6


def test_checkpoint_contains_the_gate_in_its_own_file(tmp_path: Path) -> None:
    model = build_retriever(MODEL)
    assert model.gate is not None
    torch.nn.init.normal_(model.gate.layers[-1].weight)  # type: ignore[arg-type]
    r = replace(recipe("smoke"), model=MODEL)
    saved = checkpoint.save(str(tmp_path), "step-1", model, r, made_from="", counts={})
    rows, _ = noisy_features(0)
    expected = fuse(rows["sketch"], rows["text"], 0.5, model.gate.eval())
    loaded = checkpoint.load(str(tmp_path)).gate
    for name in ("sketch", "photo", "text"):
        (tmp_path / "step-1" / f"{name}.safetensors").unlink()
    for gate in (loaded, checkpoint.load(str(tmp_path), part="gate")):
        assert torch.equal(fuse(rows["sketch"], rows["text"], 0.5, gate), expected)

    torch.nn.init.zeros_(model.gate.layers[-1].weight)  # type: ignore[arg-type]
    changed = checkpoint.save(str(tmp_path), "step-2", model, r, made_from="", counts={})
    assert changed.digest != saved.digest


def test_checkpoint_of_a_model_that_has_no_gate(tmp_path: Path) -> None:
    smoke = recipe("smoke")
    checkpoint.save(str(tmp_path), "step-1", build_retriever(smoke.model), smoke, made_from="", counts={})
    assert checkpoint.load(str(tmp_path), part="gate") is None
    assert not Folder(str(tmp_path)).exists("step-1/gate.safetensors")


def test_evaluation_fuses_queries_with_the_gate() -> None:
    rows, _ = noisy_features(3)
    gate = Gate(D, 8)
    torch.nn.init.normal_(gate.layers[-1].weight)  # type: ignore[arg-type]
    numbers, names = np.arange(N), [str(number) for number in range(N)]
    photo, sketch, text = (rows[m].numpy() for m in ("photo", "sketch", "text"))
    embedded = SplitFeatures(names, names, photo, sketch, numbers, text, numbers, gate)
    vectors = make_queries(embedded, "per-sketch", 0.3)["sketch+text"].vectors_QD
    assert gate.training  # unchanged, although evaluation runs without dropout
    expected = fuse(rows["sketch"], rows["text"], 0.3, gate.eval()).detach().numpy()
    assert np.allclose(vectors, expected, atol=1e-6)
    assert not np.allclose(vectors, fuse(rows["sketch"], rows["text"], 0.3).numpy(), atol=1e-3)
