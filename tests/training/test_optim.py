from itertools import pairwise

import pytest

from ray_jobs.recipes import recipe
from stbir.config import OptimizerConfig
from stbir.model.builder import build
from stbir.training.optim import adamw, rate, set_rate
from stbir.training.stages import Learner


def test_the_rate_climbs_then_falls_along_half_a_cosine() -> None:
    rates = [rate(step, 100, warmup=0.1, final=0.2) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == pytest.approx(1)
    assert rates[55] == pytest.approx(0.6)
    assert rates[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_the_reference_rate_is_constant() -> None:
    assert {rate(step, 8, warmup=0, final=1) for step in range(8)} == {1.0}


def test_picture_trunks_learn_at_their_share_of_the_rate() -> None:
    learner = Learner(build(recipe("smoke").model), classes=2)
    optimizer = adamw(OptimizerConfig(lr=0.1, backbone_lr_ratio=0.5, weight_decay=0.01), learner)
    set_rate(optimizer, 0.5)
    slow = {id(p) for tower in ("sketch", "photo") for p in learner.retriever.tower(tower).trunk.parameters()}  # type: ignore[arg-type, union-attr]
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[i] for i in slow} == {0.025}
    assert {lr for i, lr in rates.items() if i not in slow} == {0.05}
    assert all(group["weight_decay"] == 0.01 for group in optimizer.param_groups)


def test_only_what_learns_is_optimised() -> None:
    learner = Learner(build(recipe("smoke").model), classes=2)
    [stage] = [s for s in recipe("smoke").stages if s.name == "text"]
    learner.learn(stage)
    optimised = {id(p) for group in adamw(OptimizerConfig(), learner).param_groups for p in group["params"]}
    assert optimised == {id(p) for p in learner.retriever.text.parameters()} | {id(learner.classes_CD)}
