"""Request parsing: what a request may cost, and the fields that are refused."""

import asyncio
import base64
import gc
import io
import itertools
import json
import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve.http.api import create_app
from serve.http.request import MAX_FIELD_BYTES
from serve.http.sketch_input import split_stroke
from serve.settings import read_settings
from stbir.gallery.filters import OPS
from stbir.images import render_strokes
from tests.serve.hostile import FORM, JSON, encode, form
from tests.serve.test_auth import EmptyBackend

LIMITS = read_settings().limits
SIZE = LIMITS.body_bytes - 200
MAX_CPU_S = 0.25  # each took from 0.3 to 100 s
HEADER = b'--f\r\nContent-Disposition: form-data; name="text"\r\n'


def app() -> FastAPI:
    return create_app(EmptyBackend(), LIMITS)


def post(content_type: str, body: bytes) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app(), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.post("/v1/search", content=body, headers={"content-type": content_type})

    return asyncio.run(send())


def post_json(**fields: Any) -> httpx.Response:
    return post(JSON, json.dumps(fields).encode())


def repeat(start: bytes, unit: bytes, end: bytes, size: int = SIZE) -> bytes:
    return start + unit * ((size - len(start) - len(end)) // len(unit)) + end


HOSTILE = {
    "where of numbers": (JSON, repeat(b'{"text":"a","where":[', b"1,", b"1]}")),
    "where of conditions": (JSON, repeat(b'{"text":"a","where":[', b'{"op":1},', b"1]}")),
    "without of numbers": (JSON, repeat(b'{"text":"a","without":[', b"1,", b"1]}")),
    "without of objects": (JSON, repeat(b'{"text":"a","without":[', b'{"text":"b"},', b"1]}")),
    "without of one long text": (JSON, repeat(b'{"text":"a","without":"', b"1", b'"}')),
    "like of texts": (JSON, repeat(b'{"text":"a","like":[', b'"b",', b'"b"]}')),
    "where of one long text": (
        JSON,
        repeat(b'{"text":"a","where":[{"column":"a","op":"eq","value":"', b"a", b'"}]}'),
    ),
    "where in a form": (FORM, form(text=b"a", where=repeat(b"[", b"1,", b"1]", 1_000_000))),
    "strokes of numbers": (JSON, repeat(b'{"strokes":[', b"1,", b"1]}")),
    "points outside the image": (JSON, repeat(b'{"strokes":[[', b"[2,2],", b"[2,2]]]}", 350_000)),
    "sketch of lists": (JSON, repeat(b'{"sketch":[', b"[],", b"[]]}")),
    "unknown fields": (JSON, b"{" + b",".join(b'"x%d":1' % n for n in range(500_000)) + b"}"),
    "nested lists": (JSON, repeat(b'{"where":', b"[", b"")),
    "a number of 4,000 digits": (JSON, b'{"text":"a","k":%s}' % (b"9" * 4000)),
    "one long number": (JSON, repeat(b'{"k":', b"9", b"}")),
    "many long numbers": (JSON, repeat(b'{"where":[', b"9" * 4000 + b",", b"1]}")),
    "long text": (JSON, repeat(b'{"text":"', b"a ", b'"}')),
    "escaped text": (JSON, repeat(b'{"text":"', rb"\u0061", b'"}')),
    "parts of a form": (FORM, repeat(b"", b"".join([HEADER, b"\r\na\r\n"]), b"--f--\r\n")),
    "headers of a part": (FORM, repeat(HEADER, b"a: b\r\n", b"\r\na\r\n--f--\r\n")),
    "a long header of a part": (FORM, repeat(HEADER[:-3], b"a", b'"\r\n\r\na\r\n--f--\r\n')),
    "parameters of a header": (FORM, repeat(HEADER[:-2], b";a=b", b"\r\n\r\na\r\n--f--\r\n")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_large_invalid_request_is_refused_without_the_time_to_parse_it(name: str) -> None:
    content_type, body = HOSTILE[name]
    start_s = time.process_time()
    response = post(content_type, body)
    assert time.process_time() - start_s < MAX_CPU_S
    assert response.status_code in (413, 422)
    assert len(response.json()["detail"]) < 400


POINTS = [[[(n * 37 % 100) / 100, (n * 53 % 100) / 100] for n in range(LIMITS.points)]]


def longest_stall_s(content_type: str, body: bytes) -> float:
    """The longest time between two turns of the event loop during a successful request."""
    times = list[float]()

    async def tick() -> None:
        while True:
            times.append(time.process_time())
            await asyncio.sleep(0)

    async def send() -> None:
        transport = httpx.ASGITransport(app())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            await http.post("/v1/search", json={"strokes": [[[0, 0]]]})  # Pillow loads its formats
            gc.freeze()  # as the ingress does
            ticker = asyncio.create_task(tick())
            response = await http.post("/v1/search", content=body, headers={"content-type": content_type})
            ticker.cancel()
            assert response.status_code == 200, response.text

    asyncio.run(send())
    gc.unfreeze()
    return max(end - start for start, end in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, json.dumps({"strokes": POINTS, "text": "a"}).encode()),
        (JSON, repeat(b"{", b" ", b'"text":"a"}')),
        (FORM, form(sketch=repeat(encode(Image.new("L", (9, 9)), "PNG"), b"\r\n--", b""))),
        (FORM, repeat(form(text=b"a"), b"\r\n", b"")),
    ],
    ids=["strokes", "spaces", "image", "epilogue"],
)
def test_a_large_accepted_request_leaves_the_event_loop_free(content_type: str, body: bytes) -> None:
    """In CPU time of the process, as the tests share the machine. Threads that hold the interpreter count."""
    assert longest_stall_s(content_type, body) < 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.integers(1, 32), st.integers(0, 10**6))
def test_a_stroke_in_parts_draws_the_same_image(count: int, width: int, seed: int) -> None:
    stroke = [((n * seed * 37 % 101) / 100, (n * seed * 53 % 97) / 96) for n in range(count)]
    whole, parts = (render_strokes(strokes, width=width) for strokes in ([stroke], split_stroke(stroke)))
    assert whole.tobytes() == parts.tobytes()
    assert max(map(len, split_stroke(stroke))) <= 256


@pytest.mark.parametrize("drawing", [[], [[]], [[], []]])
@pytest.mark.parametrize("name", ["strokes", "sketch"])
@pytest.mark.parametrize("text", [None, "a chair"])
def test_a_drawing_without_strokes_is_refused(drawing: list[Any], name: str, text: str | None) -> None:
    response = post_json(**{name: drawing}, text=text)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("sketch: no stroke on it")


def test_an_empty_text_for_the_sketch_is_no_sketch() -> None:
    assert post_json(sketch="", text="a").status_code == 200
    assert post_json(sketch="", strokes=[[[0, 0], [1, 1]]]).status_code == 200
    assert post_json(sketch="").status_code == 400


@pytest.mark.parametrize("sketch", ["data:image/png;base64", "data:image/png;base64,", "data:,"])
def test_a_data_url_without_an_image_is_refused(sketch: str) -> None:
    for text in (None, "a"):
        response = post_json(sketch=sketch, text=text)
        assert response.status_code == 422
        assert response.json()["detail"].startswith("sketch: an empty image")


def test_an_image_over_the_pixel_limit_is_refused_by_its_header() -> None:
    image = encode(Image.new("L", (4096, 4096)), "WEBP", lossless=True)
    assert len(image) < 1000
    start_s = time.process_time()
    for response in (post(FORM, form(sketch=image)), post_json(sketch=base64.b64encode(image).decode())):
        assert response.status_code == 413
        assert response.json()["detail"] == "sketch: 4096 x 4096 exceeds 4000000 pixels; send less"
    assert time.process_time() - start_s < 0.2


@pytest.mark.parametrize(
    "image_format", ["EPS", "PDF", "TIFF", "GIF", "BMP", "ICO", "PPM", "TGA", "JPEG2000"]
)
def test_an_image_of_another_format_is_refused(image_format: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, image_format)
    assert post(FORM, form(sketch=buffer.getvalue())).status_code == 415


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "undefined", "unicode_escape", "utf-7", "zip", "no such"]
)
def test_a_form_of_another_charset_is_refused(charset: str) -> None:
    """`unicode_escape` makes half of a surrogate pair; `punycode` and `idna` take quadratic time."""
    for value in (rb"\ud800", b"a" * 5000 + b"-99"):
        response = post(f"multipart/form-data; charset={charset}; boundary=f", form(text=value))
        assert response.status_code == 415
        assert response.json()["detail"] == "content-type: the charset must be UTF-8"
    assert post("multipart/form-data; charset=UTF8; boundary=f", form(text="é".encode())).status_code == 200


def test_an_unknown_field_is_named_with_the_known_ones() -> None:
    for response in (post_json(text="a", wehre=[]), post(FORM, form(text=b"a", wehre=b"[]"))):
        assert response.status_code == 422
        assert response.json()["detail"].startswith(
            "wehre: no such field; send some of category, group, k, like, min_match, photo_id"
        )


def test_where_is_limited_by_its_size() -> None:
    values = ["x" * 12] * 1000
    for where, status in (([*values], 200), ([*values, "x" * 2000], 422)):
        condition = {"column": "a", "op": "in", "value": where}
        text = json.dumps([condition], separators=(",", ":"))
        assert (len(text) <= MAX_FIELD_BYTES) == (status == 200)
        for response in (
            post_json(text="a", where=[condition]),
            post(FORM, form(text=b"a", where=text.encode())),
        ):
            assert response.status_code == status, response.text


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=3)
    ),
    max_leaves=8,
)
conditions = st.fixed_dictionaries(
    {}, optional={"column": json_values, "op": st.sampled_from(list(OPS)) | json_values, "value": json_values}
)


@settings(max_examples=60, deadline=None)
@given(json_values | st.lists(conditions | json_values, max_size=4))
def test_any_json_as_where_is_accepted_or_refused(where: Any) -> None:
    body = json.dumps({"text": "a", "where": where}, ensure_ascii=True).encode()
    response = post(JSON, body)
    assert response.status_code in (200, 422)
    if response.status_code == 422:
        assert response.json()["detail"].startswith(("where", "body: Invalid JSON"))


@pytest.mark.parametrize("length", ["²", "9" * 5000, "1e3", "-1", ""])
def test_a_malformed_content_length_is_no_server_error(length: str) -> None:
    async def send() -> int:
        status = 0
        messages = [{"type": "http.request", "body": b'{"text":"a"}', "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not messages:
                await asyncio.Event().wait()  # the client stays connected
            return messages.pop()

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        headers = [
            (b"host", b"127.0.0.1"),
            (b"content-type", JSON.encode()),
            (b"content-length", length.encode("latin-1")),
        ]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/search",
            "headers": headers,
            "query_string": b"",
        }
        scope |= {
            "client": ("127.0.0.1", 9),
            "server": ("127.0.0.1", 80),
            "scheme": "http",
            "http_version": "1.1",
        }
        await app()(scope, receive, send)
        return status

    assert asyncio.run(send()) in (200, 413)
