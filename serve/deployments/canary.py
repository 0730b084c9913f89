"""The canary query: a sketch and a text that a release must answer before it is served."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from serve.messages import Encoded, EncodeResult
from serve.rollout.model_versions import ModelVersions
from stbir.errors import InputError
from stbir.images import encode_png, render_strokes

CANARY_STROKES = [[(0.2, 0.2), (0.8, 0.3), (0.5, 0.8), (0.2, 0.2)]]
CANARY_TEXT = "a canary"


def canary_sketch() -> bytes:
    """The sketch, a PNG."""
    return encode_png(render_strokes(CANARY_STROKES))


async def canary(
    encode: Callable[..., Awaitable[list[EncodeResult | None]]], item: Any, uri: str, encoders: ModelVersions
) -> Encoded:
    """The vector of a canary item, and the backend of its encoder. Raises the item's error."""
    [result] = await encode([item], uri, [math.inf])
    if not isinstance(result, Encoded):
        raise result or InputError(f"{uri}: the canary has no vector")
    return replace(result, backend=str((await encoders.get_async(uri)).backend))
