"""`stbir.train` runs the command of the same name. `tests/test_examples.py` trains with it."""

import sys

import pytest

import stbir
from stbir import InputError
from stbir.api import training

# Prints progress and its arguments, as the command prints progress and its summary.
PRINT_ARGUMENTS = """
import json, sys
print("step 1", file=sys.stderr)
print(json.dumps({"arguments": sys.argv[1:]}))
"""


def test_invalid_input_is_an_input_error_before_ray_starts(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"--recipe: no recipe 'nowhere'; available: smoke"):
        stbir.train("nowhere", "shards", "out")
    assert "no recipe 'nowhere'" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"argument --workers: expected one argument|unrecognized arguments"):
        stbir.train("smoke", "shards", "out", speed=3)


def test_options_are_those_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "_COMMAND", (sys.executable, "-c", PRINT_ARGUMENTS))
    options = {"init_from": "out/clip", "workers": 2, "aux_shards": ["a", "b"], "profile": None}
    summary = stbir.train("smoke", "s", "o", set={"batch_size": 8, "stages.joint.epochs": 3}, **options)
    assert summary["arguments"] == [
        *("--recipe", "smoke", "--shards", "s", "--out", "o"),
        *("--init-from", "out/clip", "--workers", "2", "--aux-shards", "a", "b"),
        *("--set", "batch_size=8", "stages.joint.epochs=3"),
    ]
    assert capfd.readouterr().err == "step 1\n"
