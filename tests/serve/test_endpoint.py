"""The endpoint with default settings: real deployments on Ray Serve, real requests."""

import base64
import io
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image

from serve.environment import REPLICA_NICENESS
from serve.rollout.rollout import GALLERY_RETRY_S
from serve.wiring import build_application
from stbir.images import decode_sketch, encode_png, render_strokes
from stbir.model import checkpoint
from tests.conftest import wait_until
from tests.serve.hostile import bomb

TEXT = "a red disc"
PRICE = {"column": "price", "op": "lt", "value": 3}
JSON_HEADERS = {"content-type": "application/json"}


def search(endpoint: httpx.Client, **fields) -> dict:
    response = endpoint.post("/v1/search", json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def scores(result: dict) -> dict[str, float]:
    return {hit["photo_id"]: hit["score"] for hit in result["hits"]}


def problem_detail(response: httpx.Response, status: int) -> str:
    """The detail of a response, which has to be problem details of that status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["title"]
    assert "\n" not in body["detail"]
    return body["detail"]


@pytest.fixture(scope="module")
def library_scores(checkpoint_uri, photos):
    """`library_scores(sketch, text, weight)`: the cosine similarity of each photo, by the library alone."""
    model = checkpoint.load(checkpoint_uri)

    def score(sketch: bytes | None, text: str | None, weight: float = 0.5) -> dict[str, float]:
        size = model.sketch.preprocess.size
        pixels = None if sketch is None else torch.from_numpy(np.stack([decode_sketch(sketch, size)]))
        tokens = None if text is None else model.text.tokenize([text])
        with torch.inference_mode():
            query = model.encode_query(pixels, tokens, weight).numpy()
        return dict(zip(photos.ids, (photos.vectors @ query[0]).tolist(), strict=True))

    return score


@pytest.mark.parametrize(
    ("has_sketch", "has_text", "weight"), [(1, 1, 0.5), (1, 1, 0.9), (1, 0, 0.5), (0, 1, 0.5)]
)
def test_scores_equal_those_of_the_library(
    endpoint, sketch, library_scores, photos, has_sketch, has_text, weight
):
    files = {"sketch": ("s.png", sketch, "image/png")} if has_sketch else {"sketch": ("", b"")}
    fields = {"k": str(len(photos.ids)), "sketch_weight": str(weight), **({"text": TEXT} if has_text else {})}
    result = endpoint.post("/v1/search", files=files, data=fields).json()
    expected = library_scores(sketch if has_sketch else None, TEXT if has_text else None, weight)
    assert scores(result) == pytest.approx(expected, abs=1e-5)
    ranking = [hit["score"] for hit in result["hits"]]
    assert ranking == sorted(ranking, reverse=True)


def test_result_has_release_and_timing(endpoint, checkpoint_uri, sketch):
    result = search(endpoint, sketch=base64.b64encode(sketch).decode(), text=TEXT, k=3)
    assert result["checkpoint"] == checkpoint.read_digest(checkpoint_uri)
    assert result["gallery_version"] == endpoint.get("/v1/info").json()["gallery"]["version"]
    steps = {"decode", "encode_sketch", "encode_text", "fuse", "search", "total"}
    assert set(result["timing_ms"]) == steps
    assert len(result["hits"]) == 3


def test_all_encodings_of_a_sketch_are_the_same_query(endpoint):
    strokes = [[[0.1, 0.2], [0.8, 0.3], [0.5, 0.9]], [[0.4, 0.4]], []]
    image = encode_png(render_strokes([[(x, y) for x, y in stroke] for stroke in strokes[:2]]))
    text = base64.b64encode(image).decode()
    expected = scores(endpoint.post("/v1/search", files={"sketch": ("s.png", image)}).json())
    for fields in (
        {"sketch": strokes},
        {"strokes": strokes},
        {"sketch": text},
        {"sketch": f"data:image/png;base64,{text}"},
    ):
        assert scores(search(endpoint, **fields)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("is_form", [False, True])
def test_hits_meet_the_conditions(endpoint, photos, is_form):
    where = [
        {"column": "photo_id", "op": "lt", "value": "shape/10"},
        {"column": "category", "op": "in", "value": ["disc"]},
    ]
    if is_form:
        fields = {"text": (None, TEXT), "k": (None, "100"), "where": (None, json.dumps(where))}
        result = endpoint.post("/v1/search", files=fields).json()
    else:
        result = search(endpoint, text=TEXT, k=100, where=where)
    assert {hit["photo_id"] for hit in result["hits"]} == set(photos.ids[1:10:2])


def test_hits_are_of_the_category(endpoint, photos):
    result = search(endpoint, text=TEXT, k=100, category="disc")
    assert {hit["photo_id"] for hit in result["hits"]} == {
        photo for photo, category in zip(photos.ids, photos.categories, strict=True) if category == "disc"
    }


def test_photo_id_query_returns_the_nearest_other_photos(endpoint, photos):
    assert endpoint.get("/v1/info").json()["queries"] == ["sketch", "text", "photo_id", "like"]
    similarities = photos.vectors @ photos.vectors[5]
    nearest = [photos.ids[index] for index in np.argsort(-similarities) if index != 5][:7]
    result = search(endpoint, photo_id=photos.ids[5], k=7)
    assert [hit["photo_id"] for hit in result["hits"]] == nearest
    result_with_text = search(endpoint, photo_id=photos.ids[5], text=TEXT, k=len(photos.ids))
    ids = [hit["photo_id"] for hit in result_with_text["hits"]]
    assert photos.ids[5] not in ids
    assert ids[:7] != nearest


def test_hits_have_the_texts_of_the_catalogue(endpoint, photos):
    hits = search(endpoint, text=TEXT, k=len(photos.ids))["hits"]
    assert {hit["photo_id"]: hit["text"] for hit in hits} == dict(zip(photos.ids, photos.texts, strict=True))


def test_uri_of_a_hit_is_its_thumbnail(endpoint, photos):
    for hit in search(endpoint, text=TEXT, k=2)["hits"]:
        response = endpoint.get(hit["uri"])
        assert response.headers["content-type"] == "image/jpeg"
        assert response.content == photos.images[photos.ids.index(hit["photo_id"])]


def test_concurrent_searches_equal_single_ones(endpoint, photos):
    colours = ("red", "green", "blue", "grey")
    texts = [f"a {colour} {shape}" for colour in colours for shape in ("box", "disc")] * 3
    k = len(photos.ids)
    single = {text: scores(search(endpoint, text=text, k=k)) for text in set(texts)}
    with ThreadPoolExecutor(len(texts)) as pool:
        concurrent = list(pool.map(lambda text: scores(search(endpoint, text=text, k=k)), texts))
    for text, result in zip(texts, concurrent, strict=True):
        assert result == pytest.approx(single[text], abs=1e-5)


@pytest.mark.parametrize(
    ("status", "detail", "kwargs"),
    [
        (400, "the query is empty", {"json": {}}),
        (400, "the query is empty", {"json": {"text": " \n", "sketch": ""}}),
        (422, "sketch: no stroke on it", {"json": {"text": "a chair", "sketch": []}}),
        (400, "the query is empty", {"files": {"text": (None, "  "), "sketch": ("", b"")}}),
        (413, "body", {"content": b" " * 8_000_001, "headers": JSON_HEADERS}),
        (413, "sketch", {"files": {"sketch": ("s.png", bomb(60000, 60000))}}),
        (413, "sketch: 5000 x 5000", {"files": {"sketch": ("s.png", bomb(5000, 5000))}}),
        (415, "sketch", {"files": {"sketch": ("s.png", b"%PDF-1.7 not an image")}}),
        (415, "sketch", {"json": {"sketch": base64.b64encode(b"not an image").decode()}}),
        (415, "content-type", {"content": b"text=chair", "headers": {"content-type": "text/plain"}}),
        (404, "photo_id: 'nobody' is not in", {"json": {"photo_id": "nobody"}}),
        (422, "photo_id", {"json": {"photo_id": "x", "sketch": [[[0.5, 0.2]]]}}),
        (422, "k", {"json": {"text": "x", "k": 0}}),
        (422, "k", {"json": {"text": "x", "k": 101}}),
        (422, "k", {"data": {"text": "x", "k": "many"}, "files": {"sketch": ("", b"")}}),
        (422, "sketch_weight", {"json": {"text": "x", "sketch_weight": 1.5}}),
        (422, "sketch_weight", {"files": {"text": (None, "x"), "sketch_weight": (None, "nan")}}),
        (422, "category: no category 'x'; available: box, disc", {"json": {"text": "x", "category": "x"}}),
        (422, "where.0.column: no column 'price'", {"json": {"text": "x", "where": [PRICE]}}),
        (422, "where.0.op", {"json": {"text": "x", "where": [{**PRICE, "op": "like"}]}}),
        (422, "where.0.value", {"json": {"text": "x", "where": [{**PRICE, "column": "category"}]}}),
        (422, "where.1.value", {"json": {"text": "x", "where": [PRICE, {"column": "a", "op": "eq"}]}}),
        (422, "where", {"json": {"text": "x", "where": "price < 3"}}),
        (422, "where", {"json": {"text": "x", "where": {}}}),
        (422, "strokes", {"json": {"strokes": [[[0.5, 1.2]]]}}),
        (422, "strokes", {"json": {"sketch": [[[0.5]]]}}),
        (422, "sketch", {"json": {"sketch": "&&&"}}),
        (422, "text", {"json": {"text": "word " * 65}}),
        (422, "text", {"json": {"text": "w" * 1001}}),
        (422, "text", {"json": {"text": 7}}),
        (422, "colour", {"json": {"text": "x", "colour": "red"}}),
        (422, "body", {"content": b"{", "headers": JSON_HEADERS}),
        (422, "body", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    ],
)  # fmt: skip
def test_invalid_search_gets_problem_details(endpoint, status, detail, kwargs):
    assert problem_detail(endpoint.post("/v1/search", **kwargs), status).startswith(detail)


def test_body_without_content_length_is_limited(endpoint):
    parts = (b" " * 100_000 for _ in range(100))
    response = endpoint.post("/v1/search", content=parts, headers=JSON_HEADERS)
    assert problem_detail(response, 413).startswith("body")


def test_truncated_image_is_refused_by_the_sketch_replica(endpoint):
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    response = endpoint.post("/v1/search", files={"sketch": ("s.png", buffer.getvalue()[:9000])})
    assert problem_detail(response, 415).startswith("sketch: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/photos/nobody", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("GET", "/web/nothing.js", 404),
        ("GET", "/web/../app.py", 404),
        ("GET", "/v1/search", 405),
    ],
)
def test_unknown_route_gets_problem_details(endpoint, method, path, status):
    problem_detail(endpoint.request(method, path), status)


def test_health_and_info(endpoint, photos):
    assert endpoint.get("/healthz").status_code == 200
    assert endpoint.get("/readyz").status_code == 200
    info = endpoint.get("/v1/info").json()
    assert info["gallery"]["count"] == len(photos.ids)
    assert info["gallery"]["categories"] == ["box", "disc"]
    assert info["limits"]["k"] == 100
    assert {"checkpoint", "recipe", "dim", "towers", "pixels", "backends"} == set(info["model"])
    assert info["model"]["backends"] == {"sketch": "torch", "text": "torch"}  # too small to gain


@pytest.fixture(scope="module")
def small_endpoint(serve_port, checkpoint_uri, write_gallery, tmp_path_factory):
    """A client of an endpoint that admits 17 searches and has no gallery, and a function to publish one."""
    from ray import serve

    folder = tmp_path_factory.mktemp("small")
    batching = {"max_batch_size": 1, "batch_wait_timeout_s": 0, "max_concurrent_batches": 1}
    coalescing = {"max_concurrent_groups": 1, "max_queued_searches": 1}
    settings = {"sketch": {"batching": batching}, "ingress": {"coalescing": coalescing}}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    gallery = folder / "gallery"
    args = {"checkpoint": checkpoint_uri, "gallery": str(gallery), "config": str(config)}
    serve.run(build_application(args), name="small", route_prefix="/small")
    with httpx.Client(base_url=f"http://127.0.0.1:{serve_port}/small", timeout=60) as client:
        yield client, lambda: write_gallery(gallery, checkpoint.read_digest(checkpoint_uri))
    serve.delete("small")


def test_503_until_a_gallery_is_published_then_429_at_capacity(small_endpoint, sketch):
    client, publish = small_endpoint
    search_response = client.post("/v1/search", json={"text": "x"})
    for response in (client.get("/readyz"), search_response, client.get("/v1/photos/any")):
        assert problem_detail(response, 503).startswith("no gallery is published")
    assert client.get("/v1/info").json()["gallery"] is None
    assert client.get("/healthz").status_code == 200

    publish()
    wait_until(lambda: client.get("/readyz").status_code == 200, "readiness", 10 * GALLERY_RETRY_S)

    def send(_: int) -> httpx.Response:
        return client.post("/v1/search", files={"sketch": ("s.png", sketch)})

    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(send, range(64)))
    rejected = [response for response in responses if response.status_code != 200]
    assert 0 < len(rejected) < len(responses)
    for response in rejected:
        assert problem_detail(response, 429).startswith("the service is at capacity")
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="threads have their own niceness on Linux only")
def test_replicas_have_a_lower_priority_than_the_ingress(endpoint):
    """All of their threads, including those started before this project's code."""
    assert set(niceness("Ingress")) == {0}
    for deployment in ("SketchReplica", "TextReplica", "FusionReplica"):
        assert set(niceness(deployment)) == {REPLICA_NICENESS}


def niceness(deployment: str) -> list[int]:
    """The niceness of each thread of a deployment's replicas."""
    name = f":{deployment}"
    replicas = [p for p in psutil.process_iter() if p.name().startswith("ray::") and name in p.name()]
    threads = (thread for replica in replicas for thread in Path(f"/proc/{replica.pid}/task").glob("*"))
    return [os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads]
