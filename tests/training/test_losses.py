"""Every loss against a slow explicit loop, and the laws a stage must keep."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stbir.config import LossConstants, LossWeights, Pair, Stage
from stbir.training.losses import arcface, info_nce, stage_loss, triplet
from stbir.training.negatives import Keys


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 6), st.floats(0.02, 2))
def test_info_nce_by_a_loop(seed: int, b: int, n: int, temperature: float) -> None:
    anchor, positive, candidates = unit(b, 4, seed=seed), unit(b, 4, seed=seed + 1), unit(n, 4, seed=seed + 2)
    negative = torch.rand(b, n, generator=torch.Generator().manual_seed(seed)) < 0.6
    expected = 0.0
    for i in range(b):
        right = math.exp(dot(anchor[i], positive[i]) / temperature)
        wrong = sum(
            math.exp(dot(anchor[i], candidates[j]) / temperature) for j in range(n) if bool(negative[i, j])
        )
        expected += -math.log(right / (right + wrong)) / b
    got = info_nce(anchor, positive, candidates, negative, temperature)
    assert got.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 6), st.floats(0, 1))
def test_triplet_by_a_loop(seed: int, b: int, n: int, margin: float) -> None:
    anchor, positive, candidates = unit(b, 4, seed=seed), unit(b, 4, seed=seed + 1), unit(n, 4, seed=seed + 2)
    negative = torch.rand(b, n, generator=torch.Generator().manual_seed(seed)) < 0.6
    expected = 0.0
    for i in range(b):
        own = [j for j in range(n) if bool(negative[i, j])]
        right = dot(anchor[i], positive[i])
        hinges = [max(0.0, margin + dot(anchor[i], candidates[j]) - right) for j in own]
        expected += (sum(hinges) / len(hinges) if hinges else 0.0) / b
    got = triplet(anchor, positive, candidates, negative, margin)
    assert got.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_arcface_by_a_loop() -> None:
    features, weight, labels = unit(5, 4, seed=1), 3 * unit(3, 4, seed=2), [0, 2, -1, 1, 2]
    margin, scale, losses = 0.2, 32.0, []
    for row, label in zip(features, labels, strict=True):
        if label < 0:
            continue
        angles = [math.acos(dot(row, w / w.norm())) for w in weight]
        logits = [scale * math.cos(a + (margin if j == label else 0)) for j, a in enumerate(angles)]
        losses.append(-logits[label] + math.log(sum(math.exp(x) for x in logits)))
    got = arcface(features, weight, torch.tensor(labels), margin, scale)
    assert got.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_arcface_has_finite_gradients_where_a_feature_is_its_class() -> None:
    features = torch.eye(3, requires_grad=True)
    arcface(features, torch.eye(3), torch.arange(3), 0.2, 32.0).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_arcface_of_unknown_classes_only_is_zero() -> None:
    assert arcface(unit(2, 4), unit(3, 4), torch.tensor([-1, -1]), 0.2, 32.0).item() == 0


def keys(
    photo: list[int], text: list[int] | None = None, label: list[int] | None = None, rows: int = 1
) -> Keys:
    n = len(photo)
    return Keys(
        torch.tensor(photo), torch.tensor(text or list(range(n))), torch.tensor(label or [0] * n), rows
    )


SKETCH = Stage("sketch", ("sketch",), (Pair(("photo", "text"), "sketch"),), 1)


def test_a_stage_weighs_its_terms() -> None:
    features = {m: unit(4, 8, seed=i) for i, m in enumerate(("sketch", "photo", "text"))}
    heads = unit(2, 8, seed=9)
    who = keys([0, 1, 2, 3], label=[0, 0, 1, 1])
    terms = stage_loss(SKETCH, LossConstants(), features, who, heads)  # type: ignore[arg-type]
    anchor = F.normalize(features["photo"] + features["text"], dim=-1)
    others = ~torch.eye(4, dtype=torch.bool)
    rows = (anchor, features["sketch"], features["sketch"], others)
    assert terms["nce"].item() == pytest.approx(0.8 * info_nce(*rows, 0.07).item())
    assert terms["triplet"].item() == pytest.approx(0.7 * triplet(*rows, 0.2).item())
    assert terms["category"].item() == pytest.approx(
        0.2 * arcface(features["sketch"], heads, who.label, 0.2, 32).item()
    )


@pytest.mark.parametrize("off", ["nce", "triplet", "category"])
def test_a_term_of_weight_zero_is_not_computed(off: str) -> None:
    from dataclasses import replace

    features = {m: unit(3, 8, seed=i) for i, m in enumerate(("sketch", "photo", "text"))}
    stage = replace(SKETCH, weights=replace(LossWeights(), **{off: 0.0}))
    terms = stage_loss(stage, LossConstants(), features, keys([0, 1, 2]), unit(1, 8))  # type: ignore[arg-type]
    assert set(terms) == {"nce", "triplet", "category"} - {off}


@pytest.mark.parametrize("photos", [[4], [4, 4, 4]])
def test_one_photo_alone_gives_a_finite_loss(photos: list[int]) -> None:
    features = {
        m: unit(len(photos), 8, seed=i).requires_grad_() for i, m in enumerate(("sketch", "photo", "text"))
    }
    terms = stage_loss(SKETCH, LossConstants(), features, keys(photos), unit(1, 8))  # type: ignore[arg-type]
    assert terms["nce"].item() == pytest.approx(0, abs=1e-9)
    assert terms["triplet"].item() == 0
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert features["sketch"].grad is not None
    assert features["sketch"].grad.isfinite().all()


def test_drawn_negatives_are_candidates_and_not_samples() -> None:
    stage = Stage(
        "sketch",
        ("sketch",),
        (Pair(("photo",), "sketch"),),
        1,
        LossWeights(1, 0, 0),
        negatives="stored",
        hard_negatives=2,
    )
    features = {"photo": unit(6, 8, seed=1), "sketch": unit(6, 8, seed=2)}
    terms = stage_loss(stage, LossConstants(), features, keys([0, 1, 2, 5, 6, 7], rows=3), None)  # type: ignore[arg-type]
    expected = 0.0
    for sample, drawn in ((0, (1, 2)), (3, (4, 5))):
        a = features["photo"][sample]
        right = math.exp(dot(a, features["sketch"][sample]) / 0.07)
        wrong = sum(math.exp(dot(a, features["sketch"][j]) / 0.07) for j in drawn)
        expected += -math.log(right / (right + wrong)) / 2
    assert terms["nce"].item() == pytest.approx(expected)
