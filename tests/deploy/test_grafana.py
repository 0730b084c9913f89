"""Dashboards and alerts ask for figures that exist: this project's own, or Ray's."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "grafana"
NAME = re.compile(r"\bray_[a-z_]+")


def expressions(file: Path) -> list[str]:
    if file.suffix == ".yaml":
        groups = yaml.safe_load(file.read_text())["groups"]
        return [rule["expr"] for group in groups for rule in group["rules"]]
    panels = json.loads(file.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def own_figures() -> Iterator[str]:
    source = (ROOT / "ray_jobs" / "meters.py").read_text()
    yield from (f"ray_stbir_train_{name}" for name in re.findall(r'_gauge\("(\w+)"', source))
    yield from (f"ray_{name}_total" for name in re.findall(r'Counter\(\s*"(\w+)"', source))
    yield from (f"ray_{name}" for name in re.findall(r'Gauge\(\s*"(\w+)"', source))


def rays_figures() -> str:
    """Ray's own dashboards, in which each of its figures stands."""
    folder = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    return "\n".join(file.read_text() for file in folder.glob("*.py"))


# The endpoint's is held against a running endpoint, in tests/serve/test_meters.py.
OURS = sorted(file for file in FOLDER.iterdir() if file.name != "serve.json")


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_every_figure_asked_for_exists(file: Path) -> None:
    asked = {name for expression in expressions(file) for name in NAME.findall(expression)}
    assert asked
    others = asked - set(own_figures())
    theirs = rays_figures()
    assert {name for name in others if name not in theirs} == set()


def test_every_figure_of_training_is_drawn() -> None:
    drawn = " ".join(each for name in ("train", "data") for each in expressions(FOLDER / f"{name}.json"))
    assert {name for name in own_figures() if name not in drawn} == set()


def test_every_alert_says_what_to_do() -> None:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert {"summary", "do"} <= set(rule["annotations"])
        assert rule["labels"]["severity"] in ("page", "ticket")
