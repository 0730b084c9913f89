"""`stbir.train` runs the command of the same name, with its options and its errors."""

import pytest

import stbir
from stbir import InputError
from stbir.api.training import _options


def test_invalid_input_is_an_input_error_before_ray_starts(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"--recipe: no recipe 'nowhere'; available: smoke"):
        stbir.train("nowhere", "shards", "out")
    assert "no recipe 'nowhere'" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"argument --workers: expected one argument|unrecognized arguments"):
        stbir.train("smoke", "shards", "out", speed=3)


def test_options_are_those_of_the_command() -> None:
    options = {"init_from": "out/clip", "workers": 2, "aux_shards": ["a", "b"], "profile": None}
    assert [*_options(options)] == [*("--init-from", "out/clip", "--workers", "2", "--aux-shards", "a", "b")]


def test_a_run_returns_its_summary(
    ray_cluster: str, shards: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    out = str(tmp_path_factory.mktemp("run") / "checkpoint")
    summary = stbir.train("smoke", shards, out, set={"batch_size": 8}, val_split="none")
    assert (summary["recipe"], summary["checkpoint"]) == ("smoke", out)
    model = stbir.load(out)
    assert model.recipe.batch_size == 8
    assert model.digest == summary["digest"]
