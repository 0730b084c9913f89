"""Twelve kinds of hostile request, each with the statuses that answer it. They are equal for equal seeds.

Bodies keep below `limits.body_bytes` of serve/config.yaml where the size alone must not refuse them.
"""

import base64
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.endpoint import hostile_images
from benchmarks.endpoint.queries import BOUNDARY, CONTENT_TYPE, bodies, form

JSON = "application/json"
SIZE = 7_900_000  # below limits.body_bytes
MAX_POINTS, MAX_STROKES = 20_000, 2_000  # of limits
# Malformed bytes, unsupported media, invalid fields, and more than a limit.
BAD_REQUEST, NOT_FOUND, TOO_LARGE, UNSUPPORTED, INVALID = 400, 404, 413, 415, 422


@dataclass(frozen=True)
class HangUp:
    """A client that sends a part of its body, waits, reads some bytes of the answer, and resets."""

    sent: float  # share of the body
    wait_s: float = 0.0
    read_bytes: int = 0


@dataclass(frozen=True)
class HostileRequest:
    """A request and the statuses that are right for it; 429 is right for any."""

    body: bytes
    statuses: tuple[int, ...] = (INVALID,)
    content_type: str | None = JSON
    path: str = "/v1/search"
    method: str = "POST"
    hang_up: HangUp | None = None


Requests = Iterator[HostileRequest]
Rng = np.random.Generator


def large_where(rng: Rng) -> Requests:
    """Filters of megabytes, and of more conditions than the limit."""
    text = b'{"text":"a","where":['
    yield HostileRequest(_repeat(text, b"1,", b"1]}"))
    yield HostileRequest(_repeat(text, b'{"op":1},', b"1]}"))
    one_value = _repeat(text + b'{"column":"category","op":"eq","value":"', b"a", b'"}]}')
    yield HostileRequest(one_value)
    yield HostileRequest(_repeat(b"", b"a", b"", 8_000_001), (TOO_LARGE,))
    condition = {"column": "price", "op": "ge", "value": int(rng.integers(100))}
    yield _json(text="a", where=[condition] * 200)
    yield _json(text="a", where=[{"column": "price", "op": "in", "value": list(range(5000))}])
    yield _fields(text=b"a", where=_repeat(b"[", b"1,", b"1]", 1_000_000))


def deep_json(rng: Rng) -> Requests:
    """Nested lists and objects, to a depth of millions."""
    for depth in (100_000, SIZE - int(rng.integers(1000))):
        yield HostileRequest(b"[" * depth)
        yield HostileRequest(b'{"text":"a","where":' + b"[" * (depth - 30))
    yield HostileRequest(_repeat(b"", b'{"where":', b"", 900_000))
    yield HostileRequest(b'{"strokes":' + b"[" * 5000 + b"]" * 5000 + b"}")
    yield _fields(text=b"a", where=b"[" * 8000 + b"]" * 8000)
    yield _json(text="a", where="[" * 8000 + "]" * 8000)


def many_parts(rng: Rng) -> Requests:
    """Forms of thousands of parts, files, headers and parameters."""
    part, end = _part("text", b"red"), f"--{BOUNDARY}--\r\n".encode()
    file = _part('f"; filename="a', rng.bytes(16))
    header = part[: part.index(b"\r\n\r\n") + 2]
    for body in (
        *(_repeat(b"", part, end), part * 3000 + end, file * 3000 + end, _repeat(b"", part, b"")),
        _repeat(header, b"a: b\r\n", b"\r\nred\r\n" + end),
        _repeat(header[:-2], b";a=b", b"\r\n\r\nred\r\n" + end),
    ):
        yield HostileRequest(body, content_type=CONTENT_TYPE)


def pixel_bombs(rng: Rng) -> Requests:
    """Small files that decode to 16 megapixels and more."""
    yield from _sketches(hostile_images.pixel_bombs(rng), TOO_LARGE)


def broken_images(rng: Rng) -> Requests:
    """Truncated images, formats that are not accepted, and other bytes."""
    yield from _sketches(hostile_images.broken_images(rng), UNSUPPORTED)


def extreme_numbers(rng: Rng) -> Requests:
    """Numbers and times outside the range of a field or column, and those that are not finite."""
    numbers = ["1" + "0" * 400, "-1" + "0" * 400, "NaN", "Infinity", "1e400", "9" * 5000]
    for number in numbers:
        yield HostileRequest(b'{"text":"a","where":[%b]}' % _condition("price", number))
        yield HostileRequest(b'{"text":"a","where":[%b]}' % _condition("weight", number, "1e308"))
        yield HostileRequest(b'{"text":"a","k":%b}' % number.encode())
        yield HostileRequest(b'{"text":"a","sketch_weight":%b}' % number.encode())
        yield HostileRequest(b'{"strokes":[[[0.5,0.5],[%b,0.1]]]}' % number.encode())
        yield _fields(text=b"a", k=number.encode())
    yield HostileRequest(b'{"text":"a","where":[%b]}' % _condition("price", str(2**63)))
    times = ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "+292278994-08-17", "", "9" * 5000]
    for time in times:
        yield HostileRequest(b'{"text":"a","where":[%b]}' % _condition("added", json.dumps(time)))
    yield _json(text="a", k=101 + int(rng.integers(10**6)))


def lone_surrogates(rng: Rng) -> Requests:
    """Halves of surrogate pairs and bytes that are not UTF-8, in each field."""
    half = f"\\u{rng.integers(0xD800, 0xE000):04x}"
    for field in ("text", "category", "photo_id", "sketch", "where"):
        yield HostileRequest(f'{{"{field}":"{half}"}}'.encode())
    yield HostileRequest(f'{{"text":"a","{half}":1}}'.encode())
    value = f'"{half}"'
    for column in ("category", "price", "added"):
        yield HostileRequest(b'{"text":"a","where":[%b]}' % _condition(column, value))
    yield HostileRequest(b'{"text":"a","where":[{"column":%b,"op":"eq","value":1}]}' % value.encode())
    yield HostileRequest(b'{"text":"\xff\xfe"}')
    yield _fields(text=b"a", where=f'[{{"column":"category","op":"eq","value":{value}}}]'.encode())


def many_points(rng: Rng) -> Requests:
    """Drawings of as many points and strokes as the limit, of one more, and of far more."""
    points = rng.random((MAX_POINTS, 2)).round(3).tolist()
    yield _json((200,), strokes=[points])
    yield _json((200,), strokes=[points[2 * n : 2 * n + 2] for n in range(MAX_STROKES)])
    yield _json(strokes=[[*points, [0, 0]]])
    yield _json(strokes=[[point] for point in points])
    yield _json(strokes=[[[2, 2]] * MAX_POINTS])
    yield HostileRequest(_repeat(b'{"strokes":[[', b"[0.123,0.456],", b"[1,1]]]}"))
    yield HostileRequest(_repeat(b'{"strokes":[', b"1,", b"1]}"))


def content_types(rng: Rng) -> Requests:
    """Content types that do not fit the body, without a boundary, or with an unusual charset."""
    body = next(bodies("mixed", int(rng.integers(2**31))))
    refused = (None, "text/plain", "application/x-www-form-urlencoded", "application/xml", "a" * 4000)
    charsets = (f"{CONTENT_TYPE}; charset={name}" for name in ("utf-7", "idna", "zip", "\xe9" * 9))
    for content_type in (*refused, *charsets):
        yield HostileRequest(body, (UNSUPPORTED,), content_type)
    for content_type in (JSON, "multipart/form-data", "multipart/form-data; boundary=", f"{CONTENT_TYPE}x"):
        yield HostileRequest(body, (BAD_REQUEST, INVALID), content_type)
    yield HostileRequest('{"text":"a"}'.encode("utf-16"), content_type=f"{JSON}; charset=utf-16")
    yield HostileRequest(b'{"text":"a"}', content_type=CONTENT_TYPE)


def hang_ups(rng: Rng) -> Requests:
    """Valid searches of clients that reset the connection in the body, before or in the answer."""
    ways = [
        *(HangUp(0), HangUp(0.5), HangUp(0.5, wait_s=2), HangUp(0.99)),
        *(HangUp(1), HangUp(1, wait_s=0.01), HangUp(1, read_bytes=12), HangUp(1, read_bytes=500)),
    ]
    searches = bodies("mixed", int(rng.integers(2**31)))
    for way in (*ways, *ways):
        yield HostileRequest(next(searches), (200,), CONTENT_TYPE, hang_up=way)
    yield HostileRequest(b'{"text":"' + b" " * SIZE, hang_up=HangUp(0.5))


def unknown_names(rng: Rng) -> Requests:
    """Categories, photos, columns, fields and paths that do not exist."""
    name = f"{rng.integers(10**9)}"
    yield _json(text="a", category=name)
    yield _json(text="a", category="x" * 1000)
    yield _json((NOT_FOUND,), photo_id=name)
    yield _json((NOT_FOUND,), photo_id="'; --", text="a")
    yield _json(text="a", where=[{"column": name, "op": "eq", "value": 1}])
    yield _json(text="a", where=[{"column": "vector", "op": "eq", "value": 1}])
    yield HostileRequest(b'{"text":"a","x%b":1}' % name.encode())
    yield HostileRequest(b"{%b}" % b",".join(b'"x%d":1' % n for n in range(50_000)))
    for path in (f"/v1/photos/{name}", "/v1/photos/" + "a%2F" * 1000, "/v1/photos/%FF%FE", f"/v1/{name}"):
        yield HostileRequest(b"", (NOT_FOUND,), None, path, "GET")


def blank_sketches(rng: Rng) -> Requests:
    """Valid images and drawings without a stroke."""
    yield from _sketches(hostile_images.blank_images(rng), INVALID)
    yield _json(strokes=[])
    yield _json(strokes=[[]] * 100)
    yield _json(strokes=[], text="a")


KINDS: dict[str, Callable[[Rng], Requests]] = {
    kind.__name__: kind
    for kind in (
        *(large_where, deep_json, many_parts, pixel_bombs, broken_images, extreme_numbers),
        *(lone_surrogates, many_points, content_types, hang_ups, unknown_names, blank_sketches),
    )
}


def endless(seed: int) -> Iterator[tuple[str, HostileRequest]]:
    """Kinds in turn, each with a random request of it. All requests are made before the first is returned."""
    rng = np.random.default_rng(seed)
    variants = {name: list(kind(rng)) for name, kind in KINDS.items()}
    names = itertools.cycle(variants)
    return ((name, variants[name][rng.integers(len(variants[name]))]) for name in names)


def _repeat(start: bytes, unit: bytes, end: bytes, size: int = SIZE) -> bytes:
    return start + unit * ((size - len(start) - len(end)) // len(unit)) + end


def _json(statuses: tuple[int, ...] = (INVALID,), **fields: Any) -> HostileRequest:
    return HostileRequest(json.dumps(fields).encode(), statuses)


def _condition(column: str, value: str, other: str = "0") -> bytes:
    """A condition with a value of JSON."""
    return f'{{"column":"{column}","op":"in","value":[{other},{value}]}}'.encode()


def _part(name: str, content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n"


def _fields(**fields: bytes) -> HostileRequest:
    """A form of texts."""
    parts = b"".join(_part(name, content) for name, content in fields.items())
    return HostileRequest(parts + form(None, None), content_type=CONTENT_TYPE)


def _sketches(images: list[bytes], status: int) -> Requests:
    """Each image as a file of a form and in base64."""
    for image in images:
        yield HostileRequest(form(image, "a chair"), (status,), CONTENT_TYPE)
        yield _json((status,), sketch=base64.b64encode(image).decode())
