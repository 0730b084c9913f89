import math

import pytest
import torch

from stbir.errors import InputError
from stbir.model.fusion import Gate, fuse, mean_anchor


def unit(*rows: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def test_fuse_equals_an_explicit_loop() -> None:
    sketch, text = torch.randn(4, 7), torch.randn(4, 7)
    sketch, text = sketch / sketch.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)
    fused = fuse(sketch, text, 0.3)
    for i in range(4):
        mixed = [0.3 * float(s) + 0.7 * float(t) for s, t in zip(sketch[i], text[i], strict=True)]
        length = math.sqrt(sum(x * x for x in mixed))
        assert fused[i].tolist() == pytest.approx([x / length for x in mixed], abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_fuse_of_one_modality_ignores_the_weight(weight: float) -> None:
    rows = unit([3.0, 4.0], [1.0, 0.0])
    assert torch.allclose(fuse(rows, None, weight), rows)
    assert torch.allclose(fuse(None, rows, weight), rows)


@pytest.mark.parametrize("sketch_weight", [-0.1, 1.1])
def test_sketch_weight_out_of_range_is_rejected(sketch_weight: float) -> None:
    with pytest.raises(InputError, match="sketch_weight"):
        fuse(unit([1.0, 0.0]), unit([0.0, 1.0]), sketch_weight)


def test_query_of_no_modality_is_rejected() -> None:
    with pytest.raises(InputError, match="neither sketch nor text"):
        fuse(None, None)


def test_mean_anchor_is_the_unit_bisector() -> None:
    anchor = mean_anchor([unit([1.0, 0.0]), unit([0.0, 1.0])])
    assert anchor[0].tolist() == pytest.approx([math.sqrt(0.5)] * 2)


def constant_gate(shift: float) -> Gate:
    gate = Gate(2, hidden=3).eval()
    last = gate.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.constant_(last.bias, shift)
    return gate


def test_new_gate_fuses_with_the_plain_mean() -> None:
    sketch, text = unit([1.0, 0.2]), unit([0.1, 1.0])
    for weight in (0.0, 0.3, 0.5, 1.0):
        assert torch.allclose(fuse(sketch, text, weight, Gate(2, 3).eval()), fuse(sketch, text, weight))


def test_gate_shifts_the_log_odds_and_leaves_0_and_1() -> None:
    sketch, text = unit([1.0, 0.2]), unit([0.1, 1.0])
    odds = 0.3 / 0.7 * math.e**1.5
    moved = fuse(sketch, text, 0.3, constant_gate(1.5))
    assert torch.allclose(moved, fuse(sketch, text, odds / (1 + odds)), atol=1e-6)
    for end in (0.0, 1.0):
        assert torch.equal(fuse(sketch, text, end, constant_gate(1.5)), fuse(sketch, text, end))
    assert torch.equal(fuse(sketch, None, 0.5, constant_gate(9.0)), fuse(sketch, None))
    assert torch.equal(fuse(None, text, 0.5, constant_gate(9.0)), fuse(None, text))
