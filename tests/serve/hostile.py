"""Malformed and hostile requests: images, strokes, texts, and randomly mutated bodies."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

ORIENTATION = 0x0112  # of EXIF
DEGREES = {1: 0, 3: 180, 6: 90, 8: 270}  # counterclockwise rotation of the pixels
BOUNDARY = "f"
JSON = "application/json"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def draw_triangle(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A triangle without symmetry."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).polygon(((8, 8), (80, 12), (12, 56)), outline="black")
    return image.convert(mode)


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The image as bytes of that format."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def with_orientation(orientation: int) -> bytes:
    """The triangle as a phone saves it: rotated pixels and an EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(draw_triangle().rotate(DEGREES[orientation], expand=True), "PNG", exif=exif.tobytes())


def bomb(width: int, height: int) -> bytes:
    """A decompression bomb: a PNG of a few bytes whose header declares width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1024)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def images() -> dict[str, tuple[bytes, set[int]]]:
    """Images by their defect, and their valid response statuses."""
    png, valid, not_an_image, too_large = encode(draw_triangle(), "PNG"), {200}, {415}, {413}
    no_stroke = {422}
    frames = [draw_triangle(), draw_triangle().rotate(90)]
    wide = Image.fromarray(np.asarray(draw_triangle("L")).astype(np.uint16) * 257)
    gradient = Image.fromarray(np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8))
    return {
        "truncated PNG": (png[: len(png) // 2], not_an_image),
        "truncated JPEG": (encode(draw_triangle(), "JPEG")[:300], not_an_image),
        "truncated WebP": (encode(draw_triangle(), "WEBP")[:60], not_an_image),
        "header only": (png[:33], not_an_image),
        "garbage after a header": (png[:40] + b"\xff" * 200, not_an_image),
        "animated WebP": (encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]), valid),
        "animated PNG": (encode(frames[0], "PNG", save_all=True, append_images=frames[1:]), valid),
        "animated GIF": (encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), not_an_image),
        "16 bits": (encode(wide, "PNG"), valid),
        "CMYK": (encode(draw_triangle("CMYK"), "JPEG"), valid),
        "palette": (encode(draw_triangle("P"), "PNG", transparency=0), valid),
        "one bit": (encode(draw_triangle("1"), "PNG"), valid),
        "grey and alpha": (encode(draw_triangle("LA"), "PNG"), valid),
        "all transparent": (encode(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"), no_stroke),
        "white strokes on nothing": (
            encode(ImageOps.invert(draw_triangle("L")), "PNG", transparency=0),
            valid,
        ),
        "gradient": (encode(gradient, "PNG"), no_stroke),
        "one pixel": (encode(Image.new("L", (1, 1)), "PNG"), no_stroke),
        "15000 x 1": (encode(Image.new("L", (15_000, 1)), "PNG"), no_stroke),
        "EXIF orientation": (with_orientation(6), valid),
        "broken EXIF": (encode(draw_triangle(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), valid),
        "zero width": (bomb(0, 64), not_an_image),
        "too many pixels": (bomb(60_000, 60_000), too_large),
        "maximum size": (bomb(2**31 - 1, 2**31 - 1), {413, 415}),
        "over the pixel limit": (encode(Image.new("1", (5_000, 4_000)), "PNG"), too_large),
        "over the body limit": (b"\x89PNG\r\n\x1a\n" + b"\0" * 8_000_001, too_large),
        "polyglot, image first": (png + b"PK\x03\x04<script>alert(1)</script>", valid),
        "polyglot, HTML first": (b"<html>" + png, not_an_image),
        "SVG": (
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            not_an_image,
        ),
        "TIFF": (encode(draw_triangle(), "TIFF"), not_an_image),
        "BMP": (encode(draw_triangle(), "BMP"), not_an_image),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", not_an_image),
        "text": (b"a red chair", not_an_image),
        "empty": (b"", {400}),
    }


def strokes() -> list[Any]:
    """Valid and invalid strokes as JSON values."""
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
    """Texts from none to a million characters."""
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
    """JSON bodies, a few of them valid searches."""
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
    for data, _ in images().values():
        yield json.dumps({"sketch": base64.b64encode(data).decode()}).encode()


def form(**fields: bytes) -> bytes:
    """A multipart form; the field `sketch` is a file."""
    parts = []
    for name, value in fields.items():
        file = '; filename="me.png"\r\nContent-Type: image/png' if name == "sketch" else ""
        header = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(header.encode() + value + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def mutated_requests(seed: int) -> Iterator[tuple[str, bytes]]:
    """An endless stream of content types and bodies: valid ones with changed, removed or repeated bytes."""
    rng = np.random.default_rng(seed)
    content_types = [FORM, JSON]
    valid = [
        (FORM, form(sketch=encode(draw_triangle(), "PNG"), text=b"a red chair", k=b"3")),
        (FORM, form(sketch=encode(draw_triangle(), "JPEG", quality=40), sketch_weight=b"0.2")),
        (FORM, form(sketch=encode(draw_triangle(), "WEBP"), category=b"box")),
        (
            JSON,
            json.dumps({"strokes": [[[0.1, 0.1], [0.9, 0.5]]], "text": "a", "k": 4}).encode(),
        ),
        (JSON, json.dumps({"photo_id": "shape/03", "text": "red", "stroke_width": 3}).encode()),
    ]
    while True:
        content_type, body = valid[rng.integers(len(valid))]
        mutated = bytearray(body)
        for _ in range(rng.geometric(0.4)):
            _mutate(mutated, rng)
        yield content_type if rng.random() < 0.95 else content_types[rng.integers(2)], bytes(mutated)


def _mutate(body: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(body) + 1))
    end = min(len(body), start + int(rng.geometric(0.1)))
    part = bytes(body[start:end])
    variants = (b"", part * 2, rng.bytes(end - start), b"\0", b"\r\n", part[::-1], b"\xff" * len(part))
    body[start:end] = variants[rng.integers(len(variants))]
