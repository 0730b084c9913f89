"""Dashboards and alerts ask for figures that exist: this project's own, or Ray's."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from serve.metrics import MILLISECONDS
from serve.settings import read_settings
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "grafana"
NAME = re.compile(r"\bray_[a-z_]+")


def expressions(file: Path) -> list[str]:
    if file.suffix == ".yaml":
        groups = yaml.safe_load(file.read_text())["groups"]
        return [rule["expr"] for group in groups for rule in group["rules"]]
    panels = json.loads(file.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def own_figures(room: str) -> Iterator[str]:
    source = (ROOT / room / "metrics.py").read_text()
    yield from (f"ray_stbir_train_{name}" for name in re.findall(r'_gauge\("(\w+)"', source))
    yield from (f"ray_{name}_total" for name in re.findall(r'Counter\(\s*"(\w+)"', source))
    yield from (f"ray_{name}" for name in re.findall(r'Gauge\(\s*"(\w+)"', source))
    yield from (f"ray_{name}_bucket" for name in re.findall(r'Histogram\(\s*"(\w+)"', source))


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
    others = asked - {*own_figures("ray_jobs/cluster"), *own_figures("serve")}
    theirs = rays_figures()
    assert {name for name in others if name not in theirs} == set()


def test_every_figure_of_training_is_drawn() -> None:
    drawn = " ".join(each for name in ("train", "data") for each in expressions(FOLDER / f"{name}.json"))
    assert {name for name in own_figures("ray_jobs/cluster") if name not in drawn} == set()


def test_no_figure_has_a_label_that_prometheus_sets_itself() -> None:
    """It would come as `exported_…`, and every gallery under one name."""
    labels = re.findall(
        r"\(\s*((?:\"\w+\",?\s*)+)\)", (ROOT / "ray_jobs" / "cluster" / "metrics.py").read_text()
    )
    given = {label for group in labels for label in re.findall(r'"(\w+)"', group)}
    assert "gallery" in given
    assert not given & {"job", "instance"}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_a_search_is_slow_at_half_of_its_deadline() -> None:
    expression = alerts()["SearchesAreSlow"]["expr"]
    bound = float(expression.split(">")[1])
    assert bound == read_settings().limits.deadline_s * 1000 / 2
    assert bound in MILLISECONDS  # between two of these a quantile is a guess


def test_no_alert_waits_for_a_loss_that_no_run_reports() -> None:
    """A loss that is no number ends the run before its figure is set."""
    assert not [name for name, rule in alerts().items() if "train_loss" in rule["expr"]]


def test_every_alert_says_what_to_do() -> None:
    for rule in alerts().values():
        assert {"summary", "do"} <= set(rule["annotations"])
        assert rule["labels"]["severity"] in ("page", "ticket")
