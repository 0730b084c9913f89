from dataclasses import replace
from itertools import pairwise

import pytest

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import QUERIES, joint, with_terms
from stbir.config import Objective, OptimizerConfig
from stbir.model.builder import build_retriever
from stbir.training.optim import adamw, lr_factor, set_lr
from stbir.training.stages import TrainableModel


def test_learning_rate_warms_up_then_follows_half_a_cosine() -> None:
    factors = [lr_factor(step, 100, warmup=0.1, final=0.2) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(factors) == pytest.approx(1)
    assert factors[55] == pytest.approx(0.6)
    assert factors[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in pairwise(factors[10:]))


def test_learning_rate_of_the_reference_is_constant() -> None:
    assert {lr_factor(step, 8, warmup=0, final=1) for step in range(8)} == {1.0}


def test_image_backbones_have_their_ratio_of_the_learning_rate() -> None:
    model = TrainableModel(build_retriever(recipe("smoke").model), num_classes=2)
    optimizer = adamw(OptimizerConfig(lr=0.1, backbone_lr_ratio=0.5, weight_decay=0.01), model)
    set_lr(optimizer, 0.5)
    retriever = model.retriever
    backbones = {id(p) for encoder in (retriever.sketch, retriever.photo) for p in encoder.trunk.parameters()}
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[i] for i in backbones} == {0.025}
    assert {lr for i, lr in rates.items() if i not in backbones} == {0.05}
    assert all(group["weight_decay"] == 0.01 for group in optimizer.param_groups)


def test_learnt_temperatures_have_no_weight_decay() -> None:
    model = TrainableModel(build_retriever(recipe("smoke").model), num_classes=2)
    pairs = with_terms(QUERIES, learn_temperature=True)
    model.set_stage(replace(joint(1), objective=Objective(pairs)))
    groups = adamw(OptimizerConfig(weight_decay=0.3), model).param_groups
    [temperature] = [group for group in groups if any(p is model.logit_scale_P for p in group["params"])]
    assert (temperature["weight_decay"], len(temperature["params"])) == (0, 1)
    assert {group["weight_decay"] for group in groups if group is not temperature} == {0.3}


def test_optimizer_has_only_trainable_parameters() -> None:
    model = TrainableModel(build_retriever(recipe("smoke").model), num_classes=2)
    [stage] = [s for s in recipe("smoke").stages if s.name == "text"]
    model.set_stage(stage)
    optimised = {id(p) for group in adamw(OptimizerConfig(), model).param_groups for p in group["params"]}
    assert optimised == {id(p) for p in model.retriever.text.parameters()} | {id(model.class_weight_CD)}
