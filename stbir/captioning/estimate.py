"""Estimate of a captioning run before it starts: calls, tokens, time and cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stbir.captioning.answer_store import Usage
from stbir.captioning.prompt import Prompt

PIXELS_PER_TOKEN = 28  # per side, of a Qwen vision-language model (arXiv 2409.12191)
LETTERS_PER_TOKEN = 4
# Defaults until answers are measured.
ANSWER_TOKENS = 60
CALL_SECONDS = 3.0
_MILLION = 1e6


@dataclass(frozen=True)
class Price:
    """Price of a million tokens in any currency; None if unknown."""

    tokens_in: float | None = None
    tokens_out: float | None = None

    def cost(self, usage: Usage) -> float | None:
        """Return the cost of some usage; None if no price is known."""
        if self.tokens_in is None and self.tokens_out is None:
            return None
        cost = usage.tokens_in * (self.tokens_in or 0) + usage.tokens_out * (self.tokens_out or 0)
        return round(cost / _MILLION, 4)


@dataclass(frozen=True)
class Estimate:
    """`seconds` is the duration. `measured` is the number of answers it is based on; 0: rule of thumb."""

    calls: int
    tokens_in: int
    tokens_out: int
    seconds: float
    cost: float | None
    measured: int


def estimate(
    sizes: Sequence[tuple[int, int]], prompt: Prompt, usage: Usage, concurrency: int, price: Price
) -> Estimate:
    """Estimate one call per image of these (width, height); earlier `usage`, if any, gives the averages."""
    calls = len(sizes)
    if usage.calls:
        mean_in, mean_out = usage.tokens_in / usage.calls, usage.tokens_out / usage.calls
        total = Usage(calls, round(calls * mean_in), round(calls * mean_out))
        call_seconds = usage.seconds / usage.calls or CALL_SECONDS  # vLLM in the cluster reports no times
    else:
        tokens = sum(_image_tokens(*size) for size in sizes) + calls * (len(prompt.text) // LETTERS_PER_TOKEN)
        total, call_seconds = Usage(calls, tokens, calls * ANSWER_TOKENS), CALL_SECONDS
    seconds = round(math.ceil(calls / concurrency) * call_seconds, 1)
    return Estimate(calls, total.tokens_in, total.tokens_out, seconds, price.cost(total), usage.calls)


def _image_tokens(width: int, height: int) -> int:
    return math.ceil(width / PIXELS_PER_TOKEN) * math.ceil(height / PIXELS_PER_TOKEN)


def format_duration(seconds: float) -> str:
    """Format a duration in the largest fitting unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{1 if seconds < 10 * length else 0}f} {unit}"
    return f"{seconds:.0f} seconds"
