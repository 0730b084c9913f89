"""Connection settings, checked before anything is sent."""

import math
import re
from dataclasses import dataclass, field

import httpx

from stbir_client.errors import InputError
from stbir_client.proxies import proxy_of
from stbir_client.version import __version__

DEADLINE_S, RETRIES = 30.0, 3
_GALLERY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Service:
    """`deadline_s` covers a whole call with its retries. No message and no repr contains the key.

    `gallery`: None for the default one of the endpoint.
    """

    url: str
    key: str | None = field(repr=False)
    deadline_s: float
    retries: int
    gallery: str | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)
        _check_key(self.key)
        if not 0 < self.deadline_s < math.inf:
            raise InputError(f"deadline: {self.deadline_s} is not a positive number of seconds")
        if self.retries < 0:
            raise InputError(f"retries: {self.retries} is below 0")
        if self.gallery is not None and not _GALLERY.fullmatch(self.gallery):
            raise InputError(f"gallery: {self.gallery!r} is not a name; GET /v1/galleries lists them")

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        agent = {"User-Agent": f"stbir-client/{__version__}"}
        return agent if self.key is None else {**agent, "Authorization": f"Bearer {self.key}"}

    def path(self, path: str) -> str:
        """The path of a call below `v1/`, for the gallery."""
        return path if self.gallery is None else f"v1/galleries/{self.gallery}/{path.removeprefix('v1/')}"

    @property
    def name(self) -> str:
        """The address for messages, without path and password."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode()}"

    @property
    def route(self) -> str:
        """The address, and the proxy that requests to it go through."""
        proxy = proxy_of(httpx.URL(self.url))
        return f"{self.name} through the proxy {proxy}" if proxy else self.name


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InputError(f"url: {url!r} is not a URL ({error})") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"url: {url!r} must be like http://HOST:PORT or https://HOST")


def _check_key(key: str | None) -> None:
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise InputError("key: must be printable ASCII without spaces or line breaks")
