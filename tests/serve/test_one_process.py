"""The composition `one_process` on Ray Serve: the answers of the separate deployments, from one replica."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ray import serve

from serve.settings import DEFAULT
from serve.wiring import build_application

PROFILE = str(DEFAULT.parent / "profiles" / "cpu.yaml")
STROKES = [[[0.1, 0.2], [0.8, 0.3], [0.5, 0.9]]]
MARKS = {"like": ["shape/03"], "unlike": ["shape/04"], "group": True}


@pytest.fixture(scope="module")
def one_process(serve_port: int, checkpoint_uri: str, gallery_uri: str) -> Iterator[httpx.Client]:
    """A client of an endpoint with the profile for CPUs, beside the default one."""
    arguments = {"checkpoint": checkpoint_uri, "gallery": gallery_uri, "config": PROFILE}
    serve.run(build_application(arguments), name="one_process", route_prefix="/one_process")
    with httpx.Client(base_url=f"http://127.0.0.1:{serve_port}/one_process", timeout=60) as client:
        yield client
    serve.delete("one_process")


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, {"text": "a red disc"}),
        (200, {"strokes": STROKES}),
        (200, {"strokes": STROKES, "text": "a red disc", "without": [{"text": "blue"}], **MARKS}),
        (200, {"photo_id": "shape/05", "category": "disc"}),
        (404, {"photo_id": "unknown"}),
        (415, {"sketch": "bm90IGFuIGltYWdl"}),
        (422, {"text": "a red disc", "where": [{"column": "text", "op": "eq", "value": 3}]}),
    ],
)
def test_answers_equal_those_of_separate_deployments(
    endpoint: httpx.Client, one_process: httpx.Client, status: int, fields: dict[str, object]
) -> None:
    responses = [client.post("/v1/search", json={"k": 5, **fields}) for client in (endpoint, one_process)]
    assert [response.status_code for response in responses] == [status, status]
    separate, single = map(_content, responses)
    assert single == separate


@pytest.mark.parametrize("path", ["/v1/info", "/readyz", "/v1/photos/shape%2F05", "/v1/photos/none"])
def test_other_routes_equal_those_of_separate_deployments(
    endpoint: httpx.Client, one_process: httpx.Client, path: str
) -> None:
    separate, single = endpoint.get(path), one_process.get(path)
    assert single.status_code == separate.status_code
    assert _content(single) == _content(separate)


def _content(response: httpx.Response) -> Any:
    """The body without what differs between equal requests: the times, the path of the endpoint, the id."""
    if "json" not in response.headers["content-type"]:
        return response.content
    body = response.json()
    body["timing_ms"] = sorted(body.get("timing_ms", ()))
    return {name: value for name, value in body.items() if name not in ("instance", "request_id")}


def test_one_deployment_runs(one_process: httpx.Client) -> None:
    assert set(serve.status().applications["one_process"].deployments) == {"Ingress"}
