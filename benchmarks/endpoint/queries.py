"""Bodies of searches by sketch, text and both; none is sent twice."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stbir.images import encode_png, render_strokes

BOUNDARY = "benchmark"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
NUM_SKETCHES = 64
VOCABULARY = (
    "red",
    "blue",
    "oak",
    "steel",
    "chair",
    "stool",
    "round",
    "tall",
    "legs",
    "arms",
    "back",
    "seat",
)


@dataclass(frozen=True)
class Kind:
    """Modalities of a search."""

    sketch: bool
    text: bool


KINDS = {
    "mixed": (Kind(True, True), Kind(True, False), Kind(False, True)),
    "sketch": (Kind(True, False),),
    "text": (Kind(False, True),),
}


def bodies(kinds: str, seed: int) -> Iterator[bytes]:
    """Endless form bodies, kinds in turn. Texts never repeat, so no cache helps."""
    rng = np.random.default_rng(seed)
    sketches = [_sketch(rng) for _ in range(NUM_SKETCHES)]
    for number, kind in enumerate(itertools.cycle(KINDS[kinds])):
        phrase = " ".join(rng.choice(VOCABULARY, 5))
        text = f"{phrase} {seed} {number}" if kind.text else None
        yield form(sketches[number % NUM_SKETCHES] if kind.sketch else None, text)


def form(sketch: bytes | None, text: str | None) -> bytes:
    """The body of one search."""
    parts = []
    if sketch is not None:
        head = 'name="sketch"; filename="s.png"\r\nContent-Type: image/png'
        parts.append(_part(head, sketch))
    if text is not None:
        parts.append(_part('name="text"', text.encode()))
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def _part(head: str, content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"


def _sketch(rng: np.random.Generator) -> bytes:
    """Eight random strokes as PNG."""
    steps = rng.normal(scale=0.06, size=(8, 20, 2)).cumsum(axis=1)
    strokes = np.clip(rng.uniform(0.2, 0.8, (8, 1, 2)) + steps, 0, 1)
    return encode_png(render_strokes([[(x, y) for x, y in stroke] for stroke in strokes.tolist()]))
