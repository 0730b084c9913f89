"""Each loss equals an explicit loop, and the terms of a stage follow its weights and pairs."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stbir.config import MODALITIES, LossConstants, Modality, Objective, Pair, Sampling, Stage, Trainable
from stbir.training.losses import arcface, info_nce, pair_terms, stage_loss, triplet
from stbir.training.negatives import SampleKeys, negative_masks


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 6), st.floats(0.02, 2))
def test_info_nce_equals_an_explicit_loop(seed: int, b: int, n: int, temperature: float) -> None:
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
def test_triplet_equals_an_explicit_loop(seed: int, b: int, n: int, margin: float) -> None:
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


def test_arcface_equals_an_explicit_loop() -> None:
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


def test_arcface_gradient_is_finite_at_the_class_weight() -> None:
    features = torch.eye(3, requires_grad=True)
    arcface(features, torch.eye(3), torch.arange(3), 0.2, 32.0).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_arcface_of_unlabelled_rows_is_zero() -> None:
    assert arcface(unit(2, 4), unit(3, 4), torch.tensor([-1, -1]), 0.2, 32.0).item() == 0


def keys(
    photo: list[int], text: list[int] | None = None, label: list[int] | None = None, rows: int = 1
) -> SampleKeys:
    n = len(photo)
    return SampleKeys(
        torch.tensor(photo), torch.tensor(text or list(range(n))), torch.tensor(label or [0] * n), rows
    )


def unit_features(n: int) -> dict[Modality, Tensor]:
    return {modality: unit(n, 8, seed=i).requires_grad_() for i, modality in enumerate(MODALITIES)}


TO_SKETCH = Pair(("photo", "text"), "sketch", nce=0.8, triplet=0.7)
SKETCH = Stage("sketch", Trainable(("sketch",)), Objective((TO_SKETCH,), category=0.2), 1)


def test_stage_loss_weights_its_terms() -> None:
    features = unit_features(4)
    heads = unit(2, 8, seed=9)
    sample_keys = keys([0, 1, 2, 3], label=[0, 0, 1, 1])
    terms = stage_loss(SKETCH, LossConstants(), features, sample_keys, heads)
    anchor = F.normalize(features["photo"] + features["text"], dim=-1)
    others = ~torch.eye(4, dtype=torch.bool)
    rows = (anchor, features["sketch"], features["sketch"], others)
    assert terms["nce"].item() == pytest.approx(0.8 * info_nce(*rows, 0.07).item())
    assert terms["triplet"].item() == pytest.approx(0.7 * triplet(*rows, 0.2).item())
    assert terms["category"].item() == pytest.approx(
        0.2 * arcface(features["sketch"], heads, sample_keys.label, 0.2, 32).item()
    )


def test_class_term_counts_once_for_each_trainable_encoder() -> None:
    features, heads, label = unit_features(4), unit(2, 8, seed=9), [0, 0, 1, 1]
    pairs = (Pair(("photo", "text"), "sketch"), Pair(("sketch",), "photo"), Pair(("text",), "photo"))
    stage = replace(
        SKETCH, trainable=Trainable(("photo", "sketch")), objective=Objective(pairs, category=0.2)
    )
    terms = stage_loss(stage, LossConstants(), features, keys([0, 1, 2, 3], label=label), heads)
    rows = (features["sketch"], features["photo"])
    expected = sum(arcface(each, heads, torch.tensor(label), 0.2, 32).item() for each in rows)
    assert terms["category"].item() == pytest.approx(0.2 * expected)


@pytest.mark.parametrize("term", ["nce", "triplet", "category"])
def test_term_of_weight_zero_is_not_computed(term: str) -> None:
    features = unit_features(3)
    changed = {term: 0.0}
    objective = (
        Objective((TO_SKETCH,), **changed)
        if term == "category"
        else replace(SKETCH.objective, pairs=(replace(TO_SKETCH, **changed),))
    )
    stage = replace(SKETCH, objective=objective)
    terms = stage_loss(stage, LossConstants(), features, keys([0, 1, 2]), unit(1, 8))
    assert set(terms) == {"nce", "triplet", "category"} - {term}


@pytest.mark.parametrize("photos", [[4], [4, 4, 4]])
def test_batch_of_one_photo_has_a_finite_loss(photos: list[int]) -> None:
    features = unit_features(len(photos))
    terms = stage_loss(SKETCH, LossConstants(), features, keys(photos), unit(1, 8))
    assert terms["nce"].item() == pytest.approx(0, abs=1e-9)
    assert terms["triplet"].item() == 0
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert features["sketch"].grad is not None
    assert features["sketch"].grad.isfinite().all()


@pytest.mark.parametrize("stride", [1, 3])
def test_hard_negatives_are_candidates_and_not_samples(stride: int) -> None:
    """The anchors may come with the hard negatives (stride 1) or without."""
    objective = Objective((Pair(("photo",), "sketch", candidates="hard"),))
    stage = Stage("sketch", Trainable(("sketch",)), objective, 1, Sampling(hard_negatives=2))
    features = unit_features(6)
    given = features | {"photo": features["photo"][::stride]}
    terms = stage_loss(stage, LossConstants(), given, keys([0, 1, 2, 5, 6, 7], rows=3), None)
    expected = 0.0
    for sample, negatives in ((0, (1, 2)), (3, (4, 5))):
        a = features["photo"][sample]
        right = math.exp(dot(a, features["sketch"][sample]) / 0.07)
        wrong = sum(math.exp(dot(a, features["sketch"][j]) / 0.07) for j in negatives)
        expected += -math.log(right / (right + wrong)) / 2
    assert terms["nce"].item() == pytest.approx(expected)


@settings(max_examples=30)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["batch", "class", "batch+hard", "hard"]),
    st.booleans(),
    st.sampled_from([0.02, 0.07, 1.0]),
)
def test_terms_of_a_pair_equal_an_explicit_loop(
    seed: int, candidates: str, symmetric: bool, temperature: float
) -> None:
    """Three samples of two hard negatives each, one of which is the sample's own photo or caption."""
    sample_keys = keys(
        [0, 1, 0, 2, 3, 4, 5, 2, 6], [0, 1, 2, 3, 3, 5, 6, 7, 8], [0, 0, 0, 0, 1, 0, 1, 1, 0], 3
    )
    anchor, positive = unit(9, 4, seed=seed), unit(9, 4, seed=seed + 1)
    pair = Pair(("photo",), "sketch", 0.5, 0.25, candidates=candidates, symmetric=symmetric)  # type: ignore[arg-type]
    terms = pair_terms(pair, anchor, positive, sample_keys, temperature, margin=0.2)
    masks = negative_masks(candidates, sample_keys)
    nce, hinge = 0.0, 0.0
    directions = [(anchor, positive), (positive, anchor)] if symmetric else [(anchor, positive)]
    for row, i in enumerate((0, 3, 6)):
        for a, p in directions:
            right = math.exp(dot(a[i], p[i]) / temperature)
            wrong = sum(math.exp(dot(a[i], p[j]) / temperature) for j in range(9) if masks[0][row, j])
            nce -= math.log(right / (right + wrong)) / len(directions) / 3
        own = [
            max(0.0, 0.2 + dot(anchor[i], positive[j] - positive[i])) for j in range(9) if masks[1][row, j]
        ]
        hinge += sum(own) / len(own) / 3 if own else 0.0
    assert terms["nce"].item() == pytest.approx(0.5 * nce, rel=1e-6, abs=1e-9)
    assert terms["triplet"].item() == pytest.approx(0.25 * hinge, rel=1e-6, abs=1e-9)


def test_only_pairs_with_a_learnt_temperature_use_the_parameter() -> None:
    fixed, learnt = (
        Pair(("photo",), "sketch", temperature=0.5),
        Pair(("text",), "sketch", learn_temperature=True),
    )
    features, sample_keys = unit_features(4), keys([0, 1, 2, 3])
    temperature = torch.tensor([0.3, 0.1], dtype=torch.float64, requires_grad=True)
    stage = replace(SKETCH, objective=Objective((fixed, learnt)))
    terms = stage_loss(stage, LossConstants(), features, sample_keys, None, temperature_P=temperature)
    others, sketch = ~torch.eye(4, dtype=torch.bool), features["sketch"]
    expected = [
        info_nce(features[modality], sketch, sketch, others, value)
        for modality, value in (("photo", 0.5), ("text", 0.1))
    ]
    assert terms["nce"].item() == pytest.approx(sum(each.item() for each in expected))
    terms["nce"].backward()  # type: ignore[no-untyped-call]
    assert temperature.grad is not None
    assert temperature.grad[0] == 0
    assert temperature.grad[1] != 0
