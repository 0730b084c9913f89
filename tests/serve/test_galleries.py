"""Galleries by name behind one endpoint: the search of each, who may use it, and when all are ready."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serve.deployments.replicas import TextReplica
from serve.deployments.searcher import Searcher
from serve.http.admission import Admission, AdmissionControl
from serve.http.api import create_app
from serve.http.api_keys import ApiKeys, new_key
from serve.http.auth import ApiKeyAuth
from serve.http.paths import gallery_name, route_path
from serve.http.search_backend import SearchBackend
from serve.problem import Problem, problem_app
from serve.rollout.records import ReleaseRecords
from serve.settings import read_settings
from tests.serve.conftest import COUNT
from tests.serve.local import MemoryStore, local_searchers
from tests.serve.test_auth import EmptyBackend

SHOES = "/v1/galleries/shoes"
TEXT = {"text": "a red disc", "k": COUNT}


@pytest.fixture(scope="module")
def backends(checkpoint_uri: str, gallery_uri: str, shoes_uri: str) -> dict[str, Searcher]:
    return local_searchers(checkpoint_uri, gallery_uri, shoes=shoes_uri)


@pytest.fixture(scope="module")
def app(backends: dict[str, Searcher]) -> FastAPI:
    return create_app(backends["default"], read_settings().limits, galleries=backends)


def request(app: FastAPI, *requests: tuple[str, str, Any], key: str = "") -> list[httpx.Response]:
    """The responses to requests that are sent at once: method, path and JSON body."""

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers
        ) as http:
            sent = (http.request(method, path, json=body) for method, path, body in requests)
            return await asyncio.gather(*sent)

    return asyncio.run(send())


def get(app: FastAPI, path: str, key: str = "") -> httpx.Response:
    [response] = request(app, ("GET", path, None), key=key)
    return response


def post(app: FastAPI, path: str, body: Mapping[str, Any] = TEXT, key: str = "") -> httpx.Response:
    [response] = request(app, ("POST", path, body), key=key)
    return response


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [hit["photo_id"] for hit in response.json()["hits"]]


def test_each_route_of_a_gallery_answers_from_it(app: FastAPI) -> None:
    default, shoes = post(app, "/v1/search"), post(app, f"{SHOES}/search")
    assert ids(shoes) == [photo_id.replace("shape", "shoe") for photo_id in ids(default)]
    uri = shoes.json()["hits"][0]["uri"]
    assert uri.startswith(f"{SHOES}/photos/shoe%2F")
    assert get(app, uri).content == get(app, default.json()["hits"][0]["uri"]).content
    assert get(app, "/v1/photos/shoe%2F00").status_code == 404
    assert get(app, f"{SHOES}/photos/shape%2F00").status_code == 404
    assert post(app, f"{SHOES}/explain?hit=shoe%2F07").status_code == 200
    assert post(app, f"{SHOES}/explain?hit=shape%2F07").status_code == 404
    assert post(app, f"{SHOES}/search", {"photo_id": "shape/05"}).status_code == 404
    assert get(app, f"{SHOES}/info").json()["gallery"]["name"] == "shoes"


def test_the_default_gallery_has_its_name_too(app: FastAPI) -> None:
    default, named = post(app, "/v1/search"), post(app, "/v1/galleries/default/search")
    assert named.json()["hits"] == default.json()["hits"]


def test_searches_that_arrive_together_get_the_hits_of_their_own_gallery(app: FastAPI) -> None:
    """Equal queries of two galleries, more than are sent at once: neither groups nor caches mix them."""
    paths = ["/v1/search", f"{SHOES}/search"] * 40
    for path, response in zip(paths, request(app, *(("POST", path, TEXT) for path in paths)), strict=True):
        prefix = "shoe/" if path.startswith(SHOES) else "shape/"
        assert len(ids(response)) == COUNT
        assert all(photo_id.startswith(prefix) for photo_id in ids(response))


def test_text_cache_of_a_gallery_holds_no_texts_of_another(checkpoint_uri: str) -> None:
    """`timing_ms.encode_text` of a cached text is that of a look-up."""
    replica = TextReplica(read_settings().text.batching, ReleaseRecords(MemoryStore()), cache_size=8)
    lookups: list[bool] = []
    replica.count_lookup = lookups.append

    async def scenario() -> None:
        for gallery in ("default", "shoes", "default", "shoes"):
            await replica.encode(["a secret"], checkpoint_uri, [10.0], gallery)

    asyncio.run(scenario())
    assert lookups == [False, False, True, True]


class RecordedMetrics:
    """Records the labels of requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, str, str | None]] = []

    def record_request(
        self, kind: str, status: int, duration_ms: float, gallery: str, key: str | None
    ) -> None:
        self.requests.append((status, gallery, key))

    def record_steps(self, timing_ms: dict[str, float], gallery: str) -> None:
        pass

    def set_in_flight(self, count: int) -> None:
        pass


def app_with_keys(tmp_path: Path, *lines: str, metrics: RecordedMetrics | None = None) -> FastAPI:
    """The application of three galleries without photos."""
    (tmp_path / "keys").write_text("\n".join(lines))
    others: dict[str, SearchBackend] = {"shoes": EmptyBackend(), "chairs": EmptyBackend()}
    auth = ApiKeyAuth(ApiKeys(str(tmp_path / "keys")))
    return create_app(EmptyBackend(), read_settings().limits, auth, metrics=metrics, galleries=others)


@pytest.mark.parametrize(
    ("galleries", "allowed"),
    [
        ([], {"default"}),  # a key file from before there were galleries
        (["shoes"], {"shoes"}),
        (["shoes", "default"], {"default", "shoes"}),
        (["*"], {"default", "shoes", "chairs"}),
        (["none"], set()),
    ],
)
def test_a_key_opens_the_galleries_of_its_line(
    tmp_path: Path, galleries: list[str], allowed: set[str]
) -> None:
    secret, line = new_key("ada", None, galleries)
    app = app_with_keys(tmp_path, line)
    listed = get(app, "/v1/galleries", secret).json()["galleries"]
    assert {each["name"] for each in listed} == allowed
    assert {each["path"] for each in listed} == {
        "/v1" if name == "default" else f"/v1/galleries/{name}" for name in allowed
    }
    for name in ("default", "shoes", "chairs"):
        response = post(app, f"/v1/galleries/{name}/search", key=secret)
        assert response.status_code == (200 if name in allowed else 404)
    assert post(app, "/v1/search", key=secret).status_code == (200 if "default" in allowed else 404)
    assert get(app, "/v1/info", secret).status_code == (200 if "default" in allowed else 404)


def test_a_gallery_of_others_is_answered_as_one_that_does_not_exist(tmp_path: Path) -> None:
    secret, line = new_key("ada", None, ["shoes"])
    app = app_with_keys(tmp_path, line)
    for route in ("info", "photos/a"):
        responses = [get(app, f"/v1/galleries/{name}/{route}", secret) for name in ("chairs", "nowhere")]
        details = [response.json()["detail"] for response in responses]
        assert [response.status_code for response in responses] == [404, 404]
        assert details[0].replace("chairs", "nowhere") == details[1]
        assert details[1].endswith("one of: shoes")
    assert get(app, f"{SHOES}/info").status_code == 401


def test_a_problem_lists_few_names() -> None:
    others: dict[str, SearchBackend] = {f"g{number}": EmptyBackend() for number in range(1000)}
    app = create_app(EmptyBackend(), read_settings().limits, galleries=others)
    detail = get(app, f"/v1/galleries/{'x' * 3000}/info").json()["detail"]
    assert "and 981 more" in detail
    assert len(detail) < 500


def test_a_quota_counts_all_galleries_of_a_key_and_no_other_key(tmp_path: Path) -> None:
    (ada, ada_line), (bob, bob_line) = new_key("ada", 3, ["*"]), new_key("bob", 3, ["shoes"])
    metrics = RecordedMetrics()
    app = app_with_keys(tmp_path, ada_line, bob_line, metrics=metrics)
    paths = ("/v1/search", f"{SHOES}/search", "/v1/galleries/chairs/search", f"{SHOES}/search")
    responses = [post(app, path, key=ada) for path in paths]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert int(responses[-1].headers["Retry-After"]) > 0
    assert post(app, f"{SHOES}/search", key=bob).status_code == 200
    assert metrics.requests == [
        (200, "default", "ada"),
        (200, "shoes", "ada"),
        (200, "chairs", "ada"),
        (429, "shoes", "ada"),
        (200, "shoes", "bob"),
    ]


class StartingBackend(EmptyBackend):
    """A backend without a release until `problem` is None."""

    problem: Problem | None = Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no replica of FusionReplica_shoes")
    refused: str | None = None

    async def ready(self) -> dict[str, Any]:
        if self.problem is not None:
            raise self.problem
        return {"refused": self.refused}


def test_readiness_is_that_of_all_galleries_without_their_names(caplog: pytest.LogCaptureFixture) -> None:
    shoes = StartingBackend()
    app = create_app(EmptyBackend(), read_settings().limits, galleries={"shoes": shoes})
    starting = get(app, "/readyz")
    assert (starting.status_code, "shoes" in starting.text) == (503, False)
    assert starting.json()["detail"].startswith("1 of 2 galleries")
    get(app, "/readyz")
    assert caplog.text.count("gallery shoes: not ready: no replica of FusionReplica_shoes") == 1
    shoes.problem = None
    assert get(app, "/readyz").json() == {"status": "ready"}
    shoes.refused = "s3://tenant/shoes: version 9 cannot be opened"
    ready = get(app, "/readyz")
    assert (ready.status_code, "another gallery" in ready.json()["refused"]) == (200, True)
    assert "s3" not in ready.text


def test_only_searches_of_a_slow_gallery_are_rejected_as_late() -> None:
    rejection = problem_app(Problem(HTTPStatus.TOO_MANY_REQUESTS, "at capacity"))
    searches = Admission(8, is_late=lambda scope: gallery_name(scope) == "shoes")
    admission = AdmissionControl(rejection, searches)
    others: dict[str, SearchBackend] = {"shoes": EmptyBackend()}
    app = create_app(EmptyBackend(), read_settings().limits, admission=admission, galleries=others)
    assert post(app, f"{SHOES}/search").status_code == 429
    assert post(app, "/v1/search").status_code == 200
    assert get(app, f"{SHOES}/info").status_code == 200


@pytest.mark.parametrize(
    ("path", "gallery", "route"),
    [
        ("/v1/search", "default", "/v1/search"),
        ("/v1/galleries", "default", "/v1/galleries"),
        ("/v1/galleries/shoes/search", "shoes", "/v1/search"),
        ("/v1/galleries/shoes/photos/a/search", "shoes", "/v1/photos/a/search"),
        ("/v1/photos/v1/galleries/shoes/search", "default", "/v1/photos/v1/galleries/shoes/search"),
        ("/v1/galleries/a/galleries/b/search", "a", "/v1/galleries/b/search"),
        ("/healthz", "default", "/healthz"),
    ],
)
def test_paths_of_a_gallery_have_the_limits_of_their_route(path: str, gallery: str, route: str) -> None:
    for root in ("", "/shop"):
        scope = {"type": "http", "path": root + path, "root_path": root}
        assert (gallery_name(scope), route_path(scope)) == (gallery, route)
