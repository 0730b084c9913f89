"""Dashboards and alerts use existing metrics of this project or of Ray."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from serve.metrics import BUCKETS_MS
from serve.settings import read_settings
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "grafana"
TESTS = FOLDER / "alerts_test.yaml"
NAME = re.compile(r"\bray_[a-z_]+")


def expressions(file: Path) -> list[str]:
    if file.suffix == ".yaml":
        groups = yaml.safe_load(file.read_text())["groups"]
        return [rule["expr"] for group in groups for rule in group["rules"]]
    panels = json.loads(file.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def project_metrics(package: str) -> Iterator[str]:
    source = (ROOT / package / "metrics.py").read_text()
    yield from (f"ray_stbir_train_{name}" for name in re.findall(r'_gauge\("(\w+)"', source))
    yield from (f"ray_{name}_total" for name in re.findall(r'Counter\(\s*"(\w+)"', source))
    yield from (f"ray_{name}" for name in re.findall(r'Gauge\(\s*"(\w+)"', source))
    yield from (f"ray_{name}_bucket" for name in re.findall(r'Histogram\(\s*"(\w+)"', source))


def ray_dashboards() -> str:
    """The source of Ray's own dashboards, which name its metrics."""
    folder = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    return "\n".join(file.read_text() for file in folder.glob("*.py"))


# serve.json is compared with a running endpoint in tests/serve/test_metrics.py.
CHECKED = sorted(file for file in FOLDER.iterdir() if file.name not in ("serve.json", TESTS.name))


@pytest.mark.parametrize("file", CHECKED, ids=lambda file: file.name)
def test_every_queried_metric_exists(file: Path) -> None:
    queried = {name for expression in expressions(file) for name in NAME.findall(expression)}
    assert queried
    others = queried - {*project_metrics("ray_jobs/cluster"), *project_metrics("serve")}
    dashboards = ray_dashboards()
    assert {name for name in others if name not in dashboards} == set()


def test_every_training_metric_has_a_panel() -> None:
    panels = " ".join(each for name in ("train", "data") for each in expressions(FOLDER / f"{name}.json"))
    assert {name for name in project_metrics("ray_jobs/cluster") if name not in panels} == set()


def test_no_metric_has_a_label_that_prometheus_sets() -> None:
    """Prometheus would rename it to `exported_…`."""
    labels = re.findall(
        r"\(\s*((?:\"\w+\",?\s*)+)\)", (ROOT / "ray_jobs" / "cluster" / "metrics.py").read_text()
    )
    names = {label for group in labels for label in re.findall(r'"(\w+)"', group)}
    assert "gallery" in names
    assert not names & {"job", "instance"}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    tests = [
        each for group in yaml.safe_load(TESTS.read_text())["tests"] for each in group["alert_rule_test"]
    ]
    assert {test["alertname"] for test in tests if test["exp_alerts"]} == set(alerts())


def test_alerts_fire_as_tested() -> None:
    """`promtool` is a program of Prometheus (Debian: package `prometheus`)."""
    if not (promtool := shutil.which("promtool")):
        pytest.skip("no promtool on PATH")
    command = [promtool, "test", "rules", TESTS.name]
    completed = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr


def test_slow_search_alert_fires_at_half_of_the_deadline() -> None:
    expression = alerts()["HighSearchLatency"]["expr"]
    bound = float(expression.split(">")[1])
    assert bound == read_settings().limits.deadline_s * 1000 / 2
    assert bound in BUCKETS_MS  # a quantile between two buckets is interpolated


def test_no_alert_uses_the_loss() -> None:
    """A NaN loss ends the run before its metric is set."""
    assert not [name for name, rule in alerts().items() if "train_loss" in rule["expr"]]


def test_every_alert_has_summary_remedy_and_severity() -> None:
    for rule in alerts().values():
        assert {"summary", "do"} <= set(rule["annotations"])
        assert rule["labels"]["severity"] in ("page", "ticket")
