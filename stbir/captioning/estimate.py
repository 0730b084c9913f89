"""What a run will take before it is begun: calls, tokens, time, money."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stbir.captioning.answer_store import Usage
from stbir.captioning.prompt import Prompt

# Of a Qwen vision-language model: a token is a square of 28 pixels (arXiv 2409.12191), or about four letters.
PATCH = 28
LETTERS = 4
# What an answer takes, until some are there to measure.
ANSWER_TOKENS = 60
CALL_SECONDS = 3.0
_MILLION = 1e6


@dataclass(frozen=True)
class Price:
    """Of a million tokens, in any currency; None where nothing is to be said of cost."""

    tokens_in: float | None = None
    tokens_out: float | None = None

    def of(self, usage: Usage) -> float | None:
        """What these tokens cost."""
        if self.tokens_in is None and self.tokens_out is None:
            return None
        total = usage.tokens_in * (self.tokens_in or 0) + usage.tokens_out * (self.tokens_out or 0)
        return round(total / _MILLION, 4)


@dataclass(frozen=True)
class Estimate:
    """`seconds` is how long it lasts, `measured` on how many earlier answers (0: by rule of thumb)."""

    calls: int
    tokens_in: int
    tokens_out: int
    seconds: float
    cost: float | None
    measured: int


def estimate(
    sizes: Sequence[tuple[int, int]], prompt: Prompt, known: Usage, at_once: int, price: Price
) -> Estimate:
    """For pictures of these widths and heights as sent; `known` answers set the scale where there are any."""
    calls = len(sizes)
    if known.calls:
        each_in, each_out = known.tokens_in / known.calls, known.tokens_out / known.calls
        usage = Usage(calls, round(calls * each_in), round(calls * each_out))
        seconds = known.seconds / known.calls or CALL_SECONDS  # engines in the cluster tell no times
    else:
        tokens = sum(_patches(*size) for size in sizes) + calls * (len(prompt.text) // LETTERS)
        usage, seconds = Usage(calls, tokens, calls * ANSWER_TOKENS), CALL_SECONDS
    lasts = round(math.ceil(calls / at_once) * seconds, 1)
    return Estimate(calls, usage.tokens_in, usage.tokens_out, lasts, price.of(usage), known.calls)


def _patches(width: int, height: int) -> int:
    return math.ceil(width / PATCH) * math.ceil(height / PATCH)


def lasting(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{1 if seconds < 10 * length else 0}f} {unit}"
    return f"{seconds:.0f} seconds"
