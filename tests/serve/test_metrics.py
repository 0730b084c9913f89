"""Prometheus metrics of a node after a few requests, and the queries of the dashboard."""

import json
import re

import httpx
import pytest

from tests.conftest import ROOT, wait_until

DASHBOARD = ROOT / "deploy" / "grafana" / "serve.json"
STEPS = {"decode", "encode_sketch", "encode_text", "fuse", "search", "fetch"}


@pytest.fixture(scope="module")
def metrics(endpoint: httpx.Client, sketch: bytes) -> str:
    """The metrics that the node exports once they include the requests below."""
    form = {"text": "a disc that is not cached yet"}
    for _ in range(2):
        response = endpoint.post("/v1/search", data=form, files={"sketch": ("s.png", sketch)})
        assert response.status_code == 200
        assert endpoint.get(response.json()["hits"][0]["uri"]).status_code == 200
    assert endpoint.post("/v1/search", json={"k": 0}).status_code == 422
    text = ""

    def are_exported() -> bool:
        nonlocal text
        text = export()
        has_requests = total(text, "stbir_requests_total", {"kind": "sketch+text", "status": "200"}) >= 2
        has_requests = has_requests and total(text, "stbir_recent_texts_total", {"found": "true"}) >= 1
        # A gauge that is reported late is missing once, and its dependents with it.
        return has_requests and "ray_stbir_searches_inside{" in text

    wait_until(are_exported, "the export of the metrics", 60)
    return text


def export() -> str:
    """The metrics of the node now."""
    import ray

    [node] = ray.nodes()
    return httpx.get(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", trust_env=False).text


def total(text: str, name: str, tags: dict[str, str] | None = None) -> float:
    """The sum of a metric over the series with these tags."""
    return sum(
        float(value)
        for labels, value in re.findall(rf"^ray_{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
        if all(f'{tag}="{expected}"' in labels for tag, expected in (tags or {}).items())
    )


def test_requests_are_counted_by_kind_and_status(metrics: str) -> None:
    assert total(metrics, "stbir_requests_total", {"kind": "search", "status": "422"}) >= 1
    assert total(metrics, "stbir_request_ms_count", {"kind": "sketch+text"}) >= 2


def test_steps_batches_and_cache_lookups_are_counted(metrics: str) -> None:
    assert {step for step in STEPS if total(metrics, "stbir_step_ms_count", {"step": step}) >= 2} == STEPS
    assert total(metrics, "stbir_batch_size_count", {"tower": "sketch"}) >= 2
    assert total(metrics, "stbir_recent_texts_total", {"found": "true"}) >= 1
    assert total(metrics, "stbir_recent_texts_total", {"found": "false"}) >= 1


def test_gallery_size_is_exported(metrics: str) -> None:
    assert total(metrics, "stbir_gallery_rows") > 0
    assert total(metrics, "stbir_gallery_unindexed_rows") == 0


@pytest.mark.usefixtures("metrics")
def test_no_search_is_in_flight_after_the_requests() -> None:
    def is_idle() -> bool:  # a gauge is exported some seconds after it was set
        text = export()
        return "ray_stbir_searches_inside{" in text and total(text, "stbir_searches_inside") == 0

    wait_until(is_idle, "the end of all searches", 60)


def test_dashboard_queries_existing_metrics(metrics: str) -> None:
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    names = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    exported = set(re.findall(r"^(ray_\w+)\{", metrics, re.MULTILINE))
    assert names
    assert names - exported == set()
