"""What Prometheus reads from the node after a few requests, and what the dashboard asks of it."""

import json
import re
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, wait_until

DASHBOARD = ROOT / "deploy" / "grafana" / "serve.json"
STEPS = {"decode", "encode_sketch", "encode_text", "fuse", "search", "fetch"}


@pytest.fixture(scope="module")
def scraped(endpoint: httpx.Client, sketch: bytes) -> str:
    """What the node exports once the requests below are in it."""
    import ray

    [node] = ray.nodes()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    form = {"text": "a disc that nobody asked for yet"}
    for _ in range(2):
        answer = endpoint.post("/v1/search", data=form, files={"sketch": ("s.png", sketch)})
        assert answer.status_code == 200
        assert endpoint.get(answer.json()["hits"][0]["uri"]).status_code == 200
    assert endpoint.post("/v1/search", json={"k": 0}).status_code == 422
    text = ""

    def there() -> bool:
        nonlocal text
        text = httpx.get(url, trust_env=False).text
        counted = value(text, "stbir_requests_total", kind="sketch+text", status="200") >= 2
        # A gauge that came late is left out, and with it, the next time, back.
        return counted and "ray_stbir_searches_inside{" in text

    wait_until(there, "the figures at the node", 60)
    return text


def value(text: str, name: str, **tags: str) -> float:
    """The sum of a figure over the series that have these tags."""
    total = 0.0
    for labels, number in re.findall(rf"^ray_{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
        if all(f'{tag}="{told}"' in labels for tag, told in tags.items()):
            total += float(number)
    return total


def test_requests_are_counted_by_kind_and_status(scraped: str) -> None:
    assert value(scraped, "stbir_requests_total", kind="search", status="422") >= 1
    assert value(scraped, "stbir_request_ms_count", kind="sketch+text") >= 2


def test_every_step_has_its_time_and_every_tower_its_batches(scraped: str) -> None:
    assert {step for step in STEPS if value(scraped, "stbir_step_ms_count", step=step) >= 2} == STEPS
    assert value(scraped, "stbir_batch_size_count", tower="sketch") >= 2
    assert value(scraped, "stbir_recent_texts_total", found="true") >= 1
    assert value(scraped, "stbir_recent_texts_total", found="false") >= 1


def test_how_many_are_inside_is_told(scraped: str) -> None:
    assert value(scraped, "stbir_searches_inside") == 0  # nobody asks now


def test_the_dashboard_asks_for_what_there_is(scraped: str) -> None:
    board = json.loads(Path(DASHBOARD).read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    names = {name for expr in asked for name in re.findall(r"\bray_\w+", expr)}
    there = set(re.findall(r"^(ray_\w+)\{", scraped, re.MULTILINE))
    assert names
    assert names - there == set()
