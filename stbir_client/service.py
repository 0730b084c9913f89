"""Whom to ask, in whose name, for how long and how often: checked before anything is sent."""

import math
from dataclasses import dataclass, field

import httpx

from stbir_client.errors import InputError
from stbir_client.version import __version__

DEADLINE_S, RETRIES = 30.0, 3


@dataclass(frozen=True)
class Service:
    """`deadline_s` bounds a whole call, its retries and waits included. The key is in no message or repr."""

    url: str
    key: str | None = field(repr=False)
    deadline_s: float
    retries: int

    def __post_init__(self) -> None:
        _check_url(self.url)
        _check_key(self.key)
        if not 0 < self.deadline_s < math.inf:
            raise InputError(f"deadline: {self.deadline_s} is not a number of seconds above 0")
        if self.retries < 0:
            raise InputError(f"retries: {self.retries} is below 0")

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        agent = {"User-Agent": f"stbir-client/{__version__}"}
        return agent if self.key is None else {**agent, "Authorization": f"Bearer {self.key}"}

    @property
    def name(self) -> str:
        """The address as messages show it: without path and password."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode()}"


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InputError(f"url: {url!r} is none ({error})") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"url: {url!r} must be like http://HOST:PORT or https://HOST")


def _check_key(key: str | None) -> None:
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise InputError("key: must be printable ASCII without spaces or line breaks")
