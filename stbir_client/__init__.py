"""Client of the stbir endpoint. It depends only on httpx."""

import warnings
from typing import Any

from stbir_client.answer import Answer, Explanation, Gallery, Hit, Info
from stbir_client.blocking import Client
from stbir_client.client import AsyncClient
from stbir_client.errors import (
    AnswerError,
    DeadlineError,
    InputError,
    ProblemError,
    StbirError,
    UnreachableError,
)
from stbir_client.filters import Condition
from stbir_client.steering import Negative
from stbir_client.version import __version__

__all__ = [
    "Answer",
    "AnswerError",
    "AsyncClient",
    "Client",
    "Condition",
    "DeadlineError",
    "Explanation",
    "Gallery",
    "Hit",
    "Info",
    "InputError",
    "Negative",
    "ProblemError",
    "StbirError",
    "UnreachableError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """`Filter`, the name of `Condition` before 0.2, for one release."""
    if name != "Filter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("stbir_client.Filter: renamed; use Condition", DeprecationWarning, stacklevel=2)
    return Condition
