"""Whom the endpoint answers: who has a key, or, where there are no keys, who is on this machine."""

import ipaddress
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from fastapi import Request

from serve.environment import HAPROXY
from serve.http.api_keys import Keys
from serve.problem import Problem
from stbir.errors import InputError

log = logging.getLogger(__name__)
VARIABLE = "STBIR_API_KEYS_FILE"
# What a proxy adds. Behind one everybody seems to be on this machine.
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class Guard(Protocol):
    """Lets a request in, or not."""

    def admit(self, request: Request) -> str:
        """Whose it is, for the log. Raises Problem where it may not come in."""


class WithKeys:
    """Who has a key of the file may ask."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def admit(self, request: Request) -> str:
        """The name of its key. Raises Problem as `Keys.admit`; searches count, their thumbnails do not."""
        return self.keys.admit(request.headers.get("authorization"), counts=request.method == "POST")


class ThisMachineOnly:
    """Without keys, nobody but who is on this machine."""

    def admit(self, request: Request) -> str:
        """Raises Problem 403 for anybody else, and for what came through a proxy."""
        host = request.client.host if request.client else ""
        forwarded = any(name in request.headers for name in FORWARDED)
        # A page of another site, whose name was pointed at this machine, comes with that name.
        if not (_is_loopback(host) and _is_local(request.url.hostname or "")) or forwarded:
            detail = f"without keys only this machine is answered; set {VARIABLE} where the service runs"
            raise Problem(HTTPStatus.FORBIDDEN, detail)
        return "local"


def guard(environment: Mapping[str, str]) -> Guard:
    """The one that the environment asks for.

    Raises InputError for a file of keys that cannot be used, and for none behind HAProxy: everybody seems to
    be on this machine there, and it says nothing of where they are.
    """
    path = environment.get(VARIABLE)
    if path:
        return WithKeys(Keys(path))
    if environment.get(HAPROXY) == "1":
        raise InputError(
            f"{VARIABLE}: not set, and {HAPROXY}=1 needs keys; make one: python -m serve.http.api_keys NAME"
        )
    log.warning("no %s: only requests from this machine are answered", VARIABLE)
    return ThisMachineOnly()


def _is_local(name: str) -> bool:
    return name == "localhost" or _is_loopback(name)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
