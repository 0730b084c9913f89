"""A client of the stbir endpoint. It needs httpx and nothing else: no torch, no Ray."""

from stbir_client.answer import Answer, Gallery, Hit, Info
from stbir_client.blocking import Client
from stbir_client.client import AsyncClient
from stbir_client.condition import Condition
from stbir_client.errors import (
    AnswerError,
    DeadlineError,
    InputError,
    ProblemError,
    StbirError,
    UnreachableError,
)
from stbir_client.version import __version__

__all__ = [
    "Answer",
    "AnswerError",
    "AsyncClient",
    "Client",
    "Condition",
    "DeadlineError",
    "Gallery",
    "Hit",
    "Info",
    "InputError",
    "ProblemError",
    "StbirError",
    "UnreachableError",
    "__version__",
]
