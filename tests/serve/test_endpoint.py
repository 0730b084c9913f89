"""The endpoint as it is served: real deployments, real requests."""

import base64
import io
import json
import os
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image

from serve.app import wire
from serve.environment import BEHIND_INGRESS
from serve.rollout.rollout import MISSING_RETRY_S
from serve.settings import DEFAULT
from stbir.images import encode_png, render_strokes, sketch_pixels
from stbir.model import checkpoint

WORDS = "a red disc"
PRICE = {"column": "price", "op": "lt", "value": 3}


def sought(endpoint: httpx.Client, **body) -> dict:
    answer = endpoint.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def scores(answer: dict) -> dict[str, float]:
    return {hit["photo_id"]: hit["score"] for hit in answer["hits"]}


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of an answer that must be problem details of that status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert "\n" not in body["detail"]
    return body["detail"]


@pytest.fixture(scope="module")
def library_scores(checkpoint_uri, photos):
    """`library_scores(sketch, text, weight)`: the cosine of every photo, by the library alone."""
    model = checkpoint.load(checkpoint_uri)

    def score(sketch: bytes | None, text: str | None, weight: float = 0.5) -> dict[str, float]:
        size = model.sketch.preprocess.size
        pixels = None if sketch is None else torch.from_numpy(np.stack([sketch_pixels(sketch, size)]))
        tokens = None if text is None else model.text.tokenize([text])
        with torch.inference_mode():
            query = model.encode_query(pixels, tokens, weight).numpy()
        return dict(zip(photos.ids, (photos.vectors @ query[0]).tolist(), strict=True))

    return score


@pytest.mark.parametrize(
    ("with_sketch", "with_text", "weight"), [(1, 1, 0.5), (1, 1, 0.9), (1, 0, 0.5), (0, 1, 0.5)]
)
def test_http_answers_what_the_library_computes(
    endpoint, sketch, library_scores, photos, with_sketch, with_text, weight
):
    files = {"sketch": ("s.png", sketch, "image/png")} if with_sketch else {"sketch": ("", b"")}
    fields = {
        "k": str(len(photos.ids)),
        "sketch_weight": str(weight),
        **({"text": WORDS} if with_text else {}),
    }
    answer = endpoint.post("/v1/search", files=files, data=fields).json()
    expected = library_scores(sketch if with_sketch else None, WORDS if with_text else None, weight)
    assert scores(answer) == pytest.approx(expected, abs=1e-5)
    ranked = [hit["score"] for hit in answer["hits"]]
    assert ranked == sorted(ranked, reverse=True)


def test_answer_names_gallery_checkpoint_and_time(endpoint, checkpoint_uri, sketch):
    answer = sought(endpoint, sketch=base64.b64encode(sketch).decode(), text=WORDS, k=3)
    assert answer["checkpoint"] == checkpoint.read_digest(checkpoint_uri)
    assert answer["gallery_version"] == endpoint.get("/v1/info").json()["gallery"]["version"]
    assert set(answer["timing_ms"]) == {
        "decode",
        "encode_sketch",
        "encode_text",
        "fuse",
        "search",
        "total",
    }
    assert len(answer["hits"]) == 3


def test_one_sketch_in_every_form_is_one_query(endpoint):
    strokes = [[[0.1, 0.2], [0.8, 0.3], [0.5, 0.9]], [[0.4, 0.4]], []]
    picture = encode_png(render_strokes([[(x, y) for x, y in stroke] for stroke in strokes[:2]]))
    text = base64.b64encode(picture).decode()
    expected = scores(endpoint.post("/v1/search", files={"sketch": ("s.png", picture)}).json())
    for body in (
        {"sketch": strokes},
        {"strokes": strokes},
        {"sketch": text},
        {"sketch": f"data:image/png;base64,{text}"},
    ):
        assert scores(sought(endpoint, **body)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("form", [False, True])
def test_conditions_narrow(endpoint, photos, form):
    where = [
        {"column": "photo_id", "op": "lt", "value": "shape/10"},
        {"column": "category", "op": "in", "value": ["disc"]},
    ]
    if form:
        fields = {"text": (None, WORDS), "k": (None, "100"), "where": (None, json.dumps(where))}
        answer = endpoint.post("/v1/search", files=fields).json()
    else:
        answer = sought(endpoint, text=WORDS, k=100, where=where)
    assert {hit["photo_id"] for hit in answer["hits"]} == set(photos.ids[1:10:2])


def test_category_narrows(endpoint, photos):
    answer = sought(endpoint, text=WORDS, k=100, category="disc")
    assert {hit["photo_id"] for hit in answer["hits"]} == {
        photo for photo, category in zip(photos.ids, photos.categories, strict=True) if category == "disc"
    }


def test_more_like_this_one_is_what_lies_nearest_to_it(endpoint, photos):
    assert endpoint.get("/v1/info").json()["queries"] == ["sketch", "text", "photo_id"]
    likeness = photos.vectors @ photos.vectors[5]
    nearest = [photos.ids[place] for place in np.argsort(-likeness) if place != 5][:7]
    answer = sought(endpoint, photo_id=photos.ids[5], k=7)
    assert [hit["photo_id"] for hit in answer["hits"]] == nearest
    with_words = sought(endpoint, photo_id=photos.ids[5], text=WORDS, k=len(photos.ids))
    assert photos.ids[5] not in {hit["photo_id"] for hit in with_words["hits"]}
    assert [hit["photo_id"] for hit in with_words["hits"]][:7] != nearest


def test_every_hit_tells_what_the_catalogue_says_of_it(endpoint, photos):
    hits = sought(endpoint, text=WORDS, k=len(photos.ids))["hits"]
    assert {hit["photo_id"]: hit["text"] for hit in hits} == dict(zip(photos.ids, photos.texts, strict=True))


def test_uri_of_a_hit_gives_its_thumbnail(endpoint, photos):
    for hit in sought(endpoint, text=WORDS, k=2)["hits"]:
        answer = endpoint.get(hit["uri"])
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content == photos.pictures[photos.ids.index(hit["photo_id"])]


def test_requests_at_once_are_answered_as_alone(endpoint, photos):
    texts = [
        f"a {colour} {kind}" for colour in ("red", "green", "blue", "grey") for kind in ("box", "disc")
    ] * 3
    body = {"k": len(photos.ids)}
    alone = {text: scores(sought(endpoint, text=text, **body)) for text in set(texts)}
    with ThreadPoolExecutor(len(texts)) as pool:
        together = list(pool.map(lambda text: scores(sought(endpoint, text=text, **body)), texts))
    for text, found in zip(texts, together, strict=True):
        assert found == pytest.approx(alone[text], abs=1e-5)


def bomb(side: int) -> bytes:
    """A PNG header that promises side x side pixels, in some hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("status", "says", "request_"),
    [
        (400, "nothing to search by", {"json": {}}),
        (400, "nothing to search by", {"json": {"text": " \n", "sketch": []}}),
        (400, "nothing to search by", {"files": {"text": (None, "  "), "sketch": ("", b"")}}),
        (413, "body", {"content": b" " * 8_000_001, "headers": {"content-type": "application/json"}}),
        (413, "sketch", {"files": {"sketch": ("s.png", bomb(60000))}}),
        (413, "sketch: 5000 x 5000", {"files": {"sketch": ("s.png", bomb(5000))}}),
        (415, "sketch", {"files": {"sketch": ("s.png", b"%PDF-1.7 no picture")}}),
        (415, "sketch", {"json": {"sketch": base64.b64encode(b"no picture").decode()}}),
        (415, "content-type", {"content": b"text=chair", "headers": {"content-type": "text/plain"}}),
        (404, "photo_id: 'nobody' is not in", {"json": {"photo_id": "nobody"}}),
        (422, "photo_id", {"json": {"photo_id": "x", "sketch": [[[0.5, 0.2]]]}}),
        (422, "k", {"json": {"text": "x", "k": 0}}),
        (422, "k", {"json": {"text": "x", "k": 101}}),
        (422, "k", {"data": {"text": "x", "k": "many"}, "files": {"sketch": ("", b"")}}),
        (422, "sketch_weight", {"json": {"text": "x", "sketch_weight": 1.5}}),
        (422, "sketch_weight", {"files": {"text": (None, "x"), "sketch_weight": (None, "nan")}}),
        (422, "category: there is no 'x'; there is box, disc", {"json": {"text": "x", "category": "x"}}),
        (422, "where.0.column: there is no 'price'", {"json": {"text": "x", "where": [PRICE]}}),
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
        (422, "body", {"content": b"{", "headers": {"content-type": "application/json"}}),
        (422, "body", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    ],
)  # fmt: skip
def test_bad_search_gets_its_problem(endpoint, status, says, request_):
    assert problem(endpoint.post("/v1/search", **request_), status).startswith(says)


def test_a_body_of_untold_length_is_bounded_too(endpoint):
    parts = (b" " * 100_000 for _ in range(100))
    answer = endpoint.post("/v1/search", content=parts, headers={"content-type": "application/json"})
    assert problem(answer, 413).startswith("body")


def test_cut_short_picture_is_refused_where_it_is_decoded(endpoint, sketch):
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    answer = endpoint.post("/v1/search", files={"sketch": ("s.png", buffer.getvalue()[:9000])})
    assert problem(answer, 415).startswith("sketch: ")


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
def test_other_errors_are_problems_too(endpoint, method, path, status):
    problem(endpoint.request(method, path), status)


def test_health_and_info(endpoint, photos):
    assert endpoint.get("/healthz").status_code == 200
    assert endpoint.get("/readyz").status_code == 200
    info = endpoint.get("/v1/info").json()
    assert info["gallery"]["count"] == len(photos.ids)
    assert info["gallery"]["categories"] == ["box", "disc"]
    assert info["limits"]["k"] == 100
    assert {"checkpoint", "recipe", "dim", "towers", "pixels"} == set(info["model"])


@pytest.fixture(scope="module")
def narrow(serve_port, checkpoint_uri, write_gallery, tmp_path_factory):
    """A client of an application with room for one sketch and no gallery yet; how to publish one."""
    from ray import serve

    folder = tmp_path_factory.mktemp("narrow")
    settings = yaml.safe_load(DEFAULT.read_text())
    settings["sketch"]["batching"] = {
        "max_batch_size": 1,
        "batch_wait_timeout_s": 0,
        "max_concurrent_batches": 1,
    }
    settings["sketch"]["options"] |= {"max_ongoing_requests": 1, "max_queued_requests": 1}
    (folder / "narrow.yaml").write_text(yaml.safe_dump(settings))
    gallery = folder / "gallery"
    args = {"checkpoint": checkpoint_uri, "gallery": str(gallery), "config": str(folder / "narrow.yaml")}
    serve.run(wire(args), name="narrow", route_prefix="/narrow")
    with httpx.Client(base_url=f"http://127.0.0.1:{serve_port}/narrow", timeout=60) as client:
        yield client, lambda: write_gallery(gallery, checkpoint.read_digest(checkpoint_uri))
    serve.delete("narrow")


def test_without_a_gallery_503_until_one_is_published_then_429_when_full(narrow, sketch):
    client, publish = narrow
    assert problem(client.get("/readyz"), 503).startswith("no gallery is published")
    assert problem(client.post("/v1/search", json={"text": "x"}), 503).startswith("no gallery is published")
    assert problem(client.get("/v1/photos/any"), 503).startswith("no gallery is published")
    assert client.get("/v1/info").json()["gallery"] is None
    assert client.get("/healthz").status_code == 200

    publish()
    patience = time.monotonic() + 10 * MISSING_RETRY_S
    while client.get("/readyz").status_code == 503 and time.monotonic() < patience:
        time.sleep(0.2)
    assert client.get("/readyz").status_code == 200

    def send(_: int) -> httpx.Response:
        return client.post("/v1/search", files={"sketch": ("s.png", sketch)})

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(send, range(64)))
    full = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(full) < len(answers)
    for answer in full:
        assert problem(answer, 429).startswith("all places are taken")
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's own on Linux alone")
def test_towers_and_fusion_stand_behind_the_ingress(endpoint):
    """Every thread of theirs: those that were there before any code of ours, too."""
    assert set(niceness("Ingress")) == {0}
    for kind in ("SketchReplica", "TextReplica", "FusionReplica"):
        assert set(niceness(kind)) == {BEHIND_INGRESS}


def niceness(kind: str) -> list[int]:
    """Of every thread of the replicas of a kind."""
    replicas = [p for p in psutil.process_iter() if p.name().startswith("ray::") and f":{kind}" in p.name()]
    threads = (thread for replica in replicas for thread in Path(f"/proc/{replica.pid}/task").glob("*"))
    return [os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads]
