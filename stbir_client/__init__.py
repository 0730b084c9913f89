"""Client of the stbir endpoint. It depends only on httpx."""

from stbir_client.answer import Answer, Gallery, Hit, Info
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
from stbir_client.filters import Filter
from stbir_client.version import __version__

__all__ = [
    "Answer",
    "AnswerError",
    "AsyncClient",
    "Client",
    "DeadlineError",
    "Filter",
    "Gallery",
    "Hit",
    "Info",
    "InputError",
    "ProblemError",
    "StbirError",
    "UnreachableError",
    "__version__",
]
