"""What nobody should send, and somebody does: pictures, strokes, texts, and forms cut and bent at random."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

ORIENTATION = 0x0112  # of EXIF
DEGREES = {1: 0, 3: 180, 6: 90, 8: 270}  # how far the pixels are turned, against the clock
BOUNDARY = "f"
JSON = "application/json"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def drawing(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A triangle, which looks another way from every side."""
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).polygon(((8, 8), (80, 12), (12, 56)), outline="black")
    return picture.convert(mode)


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    """The picture's bytes in that format."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    """The triangle as a phone saves it: pixels as the sensor has them, and EXIF that says how to hold it."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(drawing().rotate(DEGREES[orientation], expand=True), "PNG", exif=exif.tobytes())


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1024)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pictures() -> dict[str, tuple[bytes, set[int]]]:
    """Pictures by what is wrong with them, and the statuses that answer them rightly."""
    png, fine, no_picture, too_large = saved(drawing(), "PNG"), {200}, {415}, {413}
    frames = [drawing(), drawing().rotate(90)]
    wide = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    return {
        "truncated PNG": (png[: len(png) // 2], no_picture),
        "truncated JPEG": (saved(drawing(), "JPEG")[:300], no_picture),
        "truncated WebP": (saved(drawing(), "WEBP")[:60], no_picture),
        "header alone": (png[:33], no_picture),
        "garbage after a header": (png[:40] + b"\xff" * 200, no_picture),
        "animated WebP": (saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]), fine),
        "animated PNG": (saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), fine),
        "animated GIF": (saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), no_picture),
        "16 bits": (saved(wide, "PNG"), fine),
        "CMYK": (saved(drawing("CMYK"), "JPEG"), fine),
        "palette": (saved(drawing("P"), "PNG", transparency=0), fine),
        "one bit": (saved(drawing("1"), "PNG"), fine),
        "grey and alpha": (saved(drawing("LA"), "PNG"), fine),
        "all transparent": (saved(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"), fine),
        "one pixel": (saved(Image.new("L", (1, 1)), "PNG"), fine),
        "a hair": (saved(Image.new("L", (15_000, 1)), "PNG"), fine),
        "turned": (turned(6), fine),
        "broken EXIF": (saved(drawing(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), fine),
        "no pixels wide": (bomb(0, 64), no_picture),
        "too many pixels": (bomb(60_000, 60_000), too_large),
        "as many as it can say": (bomb(2**31 - 1, 2**31 - 1), {413, 415}),
        "more than are allowed": (saved(Image.new("1", (5_000, 4_000)), "PNG"), too_large),
        "more than a body": (b"\x89PNG\r\n\x1a\n" + b"\0" * 8_000_001, too_large),
        "polyglot, a picture first": (png + b"PK\x03\x04<script>alert(1)</script>", fine),
        "polyglot, a page first": (b"<html>" + png, no_picture),
        "SVG": (
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            no_picture,
        ),
        "TIFF": (saved(drawing(), "TIFF"), no_picture),
        "BMP": (saved(drawing(), "BMP"), no_picture),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", no_picture),
        "text": (b"a red chair", no_picture),
        "nothing": (b"", {400}),
    }


def strokes() -> list[Any]:
    """Drawings as JSON has them, and what JSON has besides."""
    point = [0.5, 0.5]
    return [
        *([], [[]], [[], []], [[point]], [[point, point]], [[[0, 0], [1, 1]]] * 2000),
        *([[[0, 0], [1, 1]]] * 2001, [[point] * 20_001], [[point]] * 20_001),
        *(
            [[[float("nan"), 0]]],
            [[[float("inf"), 0]]],
            [[[-float("inf"), 0]]],
            [[[1e308, 0]]],
            [[[-1e-9, 0]]],
        ),
        *([[[1.0000001, 0]]], [[[10**400, 0]]], [[["0.5", "0.5"]]], [[[True, False]]], [[[None, 1]]]),
        *([[[0.5]]], [[[0.5] * 3]], [[0.5, 0.5]], [0.5], [[[[0.5, 0.5]]]], [{"x": 1}], ["a"], [None]),
        *({"0": [[0.5, 0.5]]}, "strokes", 7, True, None, [[[5e-324, 1.0]]], [[[-0.0, 1]]]),
    ]


def texts() -> list[str]:
    """From nothing to a million characters."""
    return [
        *("", " ", "\0", "a\0b", "\n\r\t", "\x7f\x1b[31m", "\ufeff", "\u200b\u200d", "\ufffe\uffff"),
        *("כיסא אדום", "كرسي أحمر", "\u202egnirts", "赤い椅子", "🪑", "👩‍🎨" * 50, "e\u0301" * 100, "ﷺ" * 60),
        *(
            "%s%n%x",
            "'; DROP TABLE photos; --",
            "<script>",
            "../../etc/passwd",
            "{{7*7}}",
            "${jndi:ldap://x}",
        ),
        *("a" * 1000, "a" * 1001, "a " * 64, "a " * 65, "a" * 10**6, "é" * 10**6, "\u0130" * 1000),
    ]


def json_bodies() -> Iterator[bytes]:
    """Bodies of JSON, a few of which are searches."""
    for value in strokes():
        for name in ("strokes", "sketch"):
            yield json.dumps({name: value}).encode()
    for text in texts():
        for name in ("text", "category", "photo_id", "sketch"):
            yield json.dumps({name: text}).encode()
    yield from (
        b'{"text": "\\ud800"}',
        b'{"text": "\\udfff\\ud800 a"}',
        b'{"category": "\\ud83d", "text": "a"}',
    )
    yield from (
        b'{"photo_id": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"sketch": "\\ud800"}',
        b'{"text": "\xff\xfe"}',
    )
    yield from (
        b"",
        b"null",
        b"[]",
        b"7",
        b'"a"',
        b"{",
        b"{}",
        b'{"text": "a"',
        b"\xef\xbb\xbf{}",
        b"\0",
        b"[" * 100_000,
    )
    yield from (b'{"text":' + b"[" * 5000, b'{"k": 1e400, "text": "a"}', b'{"k": NaN, "text": "a"}')
    for name in ("k", "sketch_weight", "stroke_width"):
        for value in (-1, 0, 1, 33, 101, 1e9, 10**30, 0.5, "1", "NaN", None, True, [], {}):
            yield json.dumps({"text": "a chair", name: value}).encode()
    for data, _ in pictures().values():
        yield json.dumps({"sketch": base64.b64encode(data).decode()}).encode()


def form(**fields: bytes) -> bytes:
    """A form; a field `sketch` is its file."""
    parts = []
    for name, value in fields.items():
        file = '; filename="me.png"\r\nContent-Type: image/png' if name == "sketch" else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + value + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def bent(seed: int) -> Iterator[tuple[str, bytes]]:
    """Content types and bodies without end: good ones with bytes changed, cut out, doubled, moved."""
    random = np.random.default_rng(seed)
    kinds = [FORM, JSON]
    good = [
        (FORM, form(sketch=saved(drawing(), "PNG"), text=b"a red chair", k=b"3")),
        (FORM, form(sketch=saved(drawing(), "JPEG", quality=40), sketch_weight=b"0.2")),
        (FORM, form(sketch=saved(drawing(), "WEBP"), category=b"box")),
        (
            JSON,
            json.dumps({"strokes": [[[0.1, 0.1], [0.9, 0.5]]], "text": "a", "k": 4}).encode(),
        ),
        (JSON, json.dumps({"photo_id": "shape/03", "text": "red", "stroke_width": 3}).encode()),
    ]
    while True:
        kind, body = good[random.integers(len(good))]
        changed = bytearray(body)
        for _ in range(random.geometric(0.4)):
            _bend(changed, random)
        yield kind if random.random() < 0.95 else kinds[random.integers(2)], bytes(changed)


def _bend(body: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(len(body) + 1))
    end = min(len(body), start + int(random.geometric(0.1)))
    part = bytes(body[start:end])
    other = (b"", part * 2, random.bytes(end - start), b"\0", b"\r\n", part[::-1], b"\xff" * len(part))
    body[start:end] = other[random.integers(len(other))]
