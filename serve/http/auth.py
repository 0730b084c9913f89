"""Authentication: API keys, or loopback requests only if no keys are configured."""

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Protocol

from fastapi import Request

from serve.environment import HAPROXY_ENV
from serve.http.api_keys import ApiKeys
from serve.http.galleries import Client
from serve.http.paths import EXPLAIN, THUMBNAILS, route_path
from serve.problem import Problem
from stbir.errors import InputError

log = logging.getLogger(__name__)
API_KEYS_FILE_ENV = "STBIR_API_KEYS_FILE"
THUMBNAIL_COST = 0.01  # a search has up to 100 hits (`limits.k`), so it and its thumbnails cost two searches
EXPLANATION_COST = 10.0  # of a drawing: it is encoded once for each cell with a stroke, 30 times or so
# Headers that a proxy adds. Every request through a local proxy has a loopback address.
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class Authenticator(Protocol):
    """Accepts or rejects requests."""

    def authenticate(self, request: Request) -> Client:
        """The client. Raises Problem if the request is not allowed."""


class ApiKeyAuth:
    """Accepts requests with an API key."""

    def __init__(self, keys: ApiKeys) -> None:
        self.keys = keys

    def authenticate(self, request: Request) -> Client:
        """The key as a client. Raises Problem as `ApiKeys.authenticate` and `ApiKeys.charge`."""
        key = self.keys.authenticate(request.headers.get("authorization"))
        # Before the charge: log and metrics name the client that exceeds its rate.
        client = request.state.client = Client(key.name, key.galleries)
        self.keys.charge(key, _cost(request))
        return client


class LoopbackOnly:
    """Accepts requests from this machine only, and from no page of another site except those of `origins`."""

    def __init__(self, origins: Sequence[str] = ()) -> None:
        self.origins = origins

    def authenticate(self, request: Request) -> Client:
        """Raises Problem 403 for other machines, for forwarded requests, and for pages of other sites."""
        host = request.client.host if request.client else ""
        is_forwarded = any(name in request.headers for name in FORWARDED)
        # The Host header too, against DNS rebinding: a page whose name resolves to this machine.
        if not (_is_loopback(host) and _is_local(request.url.hostname or "")) or is_forwarded:
            detail = "without API keys only requests from the server's own machine are allowed"
            raise Problem(HTTPStatus.FORBIDDEN, f"{detail}; set {API_KEYS_FILE_ENV} on the server")
        if is_cross_site(request) and request.headers.get("origin") not in self.origins:
            detail = "without API keys a page of another site may not use this endpoint"
            raise Problem(HTTPStatus.FORBIDDEN, f"{detail}; name its origin in cors.origins")
        return Client("local")


def is_cross_site(request: Request) -> bool:
    """Whether a browser sends the request for a page of another origin.

    Browsers send Sec-Fetch-Site with every request, so for images too, which have no Origin.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_other_origin = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    return is_other_origin or site not in (None, "same-origin", "none")  # none: entered by the user


def create_authenticator(environment: Mapping[str, str], origins: Sequence[str] = ()) -> Authenticator:
    """The authenticator that the environment configures. `origins`: see `LoopbackOnly`.

    Raises InputError for an invalid file of keys, and for HAProxy without keys: behind it every request has a
    loopback address and no forwarding header.
    """
    path = environment.get(API_KEYS_FILE_ENV)
    if path:
        return ApiKeyAuth(ApiKeys(path))
    if environment.get(HAPROXY_ENV) == "1":
        raise InputError(
            f"{API_KEYS_FILE_ENV}: not set, and {HAPROXY_ENV}=1 requires API keys;"
            " make one: python -m serve.http.api_keys NAME"
        )
    log.warning("%s is not set: only requests from this machine are allowed", API_KEYS_FILE_ENV)
    return LoopbackOnly(origins)


def _cost(request: Request) -> float:
    """What a request takes of its key's rate, in searches."""
    path = route_path(request.scope)
    if path == EXPLAIN:
        return EXPLANATION_COST
    if path.startswith(THUMBNAILS):
        return 1.0 if request.query_params.get("size") == "large" else THUMBNAIL_COST
    return float(request.method == "POST")


def _is_local(name: str) -> bool:
    return name == "localhost" or _is_loopback(name)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
