"""Weights files of other tools: their tensors are found, and anything else is refused in one line."""

import argparse
import warnings
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stbir.errors import InputError
from stbir.model.weights import is_pretrained_tag, load_strict
from stbir.model.weights_file import read_state_dict

STATE = {"conv.weight": torch.arange(4.0), "norm.steps": torch.tensor(3)}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in STATE.items()}


def timm_checkpoint(**more: Any) -> dict[str, Any]:
    """As timm's training script saves one: with its options, paths and metrics."""
    options = argparse.Namespace(lr=0.1, output=PosixPath("out"), opt_betas=None)
    return {"epoch": 3, "arch": "x", "version": 2, "args": options, "metric": np.float64(71), **more}


FILES = {
    "plain": STATE,
    "compiled": prefixed("_orig_mod."),
    "data parallel": prefixed("module."),
    "compiled and data parallel": prefixed("module._orig_mod."),
    "part compiled": {"conv._orig_mod.weight": STATE["conv.weight"], "norm.steps": STATE["norm.steps"]},
    "open_clip": {"epoch": 3, "name": "x", "state_dict": prefixed("module."), "optimizer": {"state": {}}},
    "timm": timm_checkpoint(state_dict=STATE, optimizer={"state": {}}),
    "timm, averaged": timm_checkpoint(state_dict={"conv.weight": torch.zeros(4)}, state_dict_ema=STATE),
    "nested twice": {"model": {"state_dict": STATE}},
    **{name: {name: STATE, "epoch": 3} for name in ("model", "model_state_dict", "state_dict", "net")},
}


@pytest.mark.parametrize("name", FILES)
def test_tensors_of_other_tools_are_found(tmp_path: Path, name: str) -> None:
    torch.save(FILES[name], tmp_path / "w.pt")
    state = read_state_dict(str(tmp_path / "w.pt"))
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def write_invalid(path: Path, name: str) -> None:
    linear = nn.Linear(2, 2)
    match name:
        case "script":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch advises against TorchScript
                torch.jit.script(linear).save(path)  # type: ignore[no-untyped-call]
        case "empty":
            path.touch()
        case "text":
            path.write_text("<html>404 Not Found</html>")
        case _:
            torch.save({"module": linear, "list": [1, 2], "numbers": {"epoch": 3}}[name], path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("script", "it is a TorchScript program; save the state_dict"),
        ("empty", "it is empty"),
        ("text", "neither safetensors nor a file of torch.save"),
        ("module", "it pickles objects of torch.nn.modules.linear.Linear beside tensors; save only"),
        ("list", "it holds a list, not named tensors"),
        ("numbers", "it holds no named tensors, only epoch"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, message: str) -> None:
    write_invalid(tmp_path / "w.pt", name)
    with pytest.raises(InputError) as error:
        read_state_dict(str(tmp_path / "w.pt"))
    assert f"w.pt is not a weights file: {message}" in str(error.value)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_files_are_refused(
    tmp_path: Path, suffix: str, position: float, byte: int, cut: bool
) -> None:
    path = tmp_path / f"w.{suffix}"
    (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(STATE, path)
    data = bytearray(path.read_bytes())
    at = int(position * (len(data) - 1))
    path.write_bytes(data[:at] if cut else data[:at] + bytes([byte]) + data[at + 1 :])
    try:
        read_state_dict(str(path))  # a changed number is not noticed
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    state = {"weight": torch.tensor([[1.0, value]]), "bias": torch.zeros(1)}
    with pytest.raises(
        InputError, match=r"weights: w\.pt: weight holds NaN or infinity; take an earlier file"
    ):
        load_strict(nn.Linear(2, 1), state, "w.pt")


def test_a_checkpoint_of_timm_is_a_file_and_no_tag() -> None:
    assert not is_pretrained_tag("model_best.pth.tar")
    assert is_pretrained_tag("laion2b_s34b_b79k")
