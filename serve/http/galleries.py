"""Galleries by name: which of them a client may use, and the search behind each."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request

from serve.galleries import DEFAULT_GALLERY
from serve.http.paths import GALLERIES, gallery_name, gallery_path
from serve.http.search_backend import SearchBackend
from serve.problem import Problem

log = logging.getLogger(__name__)
ALL = "*"
_MAX_NAMES = 20  # in a problem
_MAX_CHARACTERS = 64  # of a name in a problem


@dataclass(frozen=True)
class Client:
    """A client that was authenticated: its name, and the galleries that it may use (`ALL`: all)."""

    name: str
    galleries: frozenset[str] = frozenset({ALL})

    def may_use(self, gallery: str) -> bool:
        """Whether it may use a gallery."""
        return bool(self.galleries & {gallery, ALL})


class Galleries:
    """The search backends by the names of their galleries, the default one among them."""

    def __init__(self, backends: Mapping[str, SearchBackend]) -> None:
        self._backends = backends
        self._unready: dict[str, str] = {}  # the reason by name, as last logged

    def backend(self, request: Request) -> SearchBackend:
        """The backend of an authenticated request.

        Raises Problem 404 for a gallery that does not exist and, without a difference, for one that its
        client may not use: nobody learns the names of others' galleries.
        """
        name, client = gallery_name(request.scope), _client(request)
        if name in self._backends and client.may_use(name):
            return self._backends[name]
        names = self._names(client)
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        detail = f"gallery: {name[:_MAX_CHARACTERS]!r} is not available to this client"
        known = f"{', '.join(names[:_MAX_NAMES])}{more}" if names else "none"
        raise Problem(HTTPStatus.NOT_FOUND, f"{detail}; {GALLERIES}/NAME/ is, with NAME one of: {known}")

    def describe(self, request: Request) -> list[dict[str, Any]]:
        """The galleries that the client may use: name, path of the routes, version and count of photos."""
        return [self._describe(name) for name in self._names(_client(request))]

    async def ready(self) -> dict[str, Any]:
        """The release of the default gallery. Raises Problem unless every gallery answers searches.

        Probes have no key: of another gallery neither this nor the problem shows the name; the log does.
        """
        answers: dict[str, dict[str, Any]] = {}
        problems: dict[str, Problem] = {}
        for name, backend in self._backends.items():
            try:
                answers[name] = await backend.ready()
            except Problem as problem:
                problems[name] = problem
        self._log_changes({name: problem.detail for name, problem in problems.items()})
        if DEFAULT_GALLERY in problems:
            raise problems[DEFAULT_GALLERY]
        if problems:
            [first, *_] = problems.values()
            detail = f"{len(problems)} of {len(self._backends)} galleries do not answer yet; see the log"
            raise Problem(first.status, detail, first.headers)
        answer = answers.pop(DEFAULT_GALLERY)
        if not answer.get("refused") and any(each.get("refused") for each in answers.values()):
            return {**answer, "refused": "the newest release of another gallery; see the log"}
        return answer

    def _names(self, client: Client) -> list[str]:
        return [name for name in self._backends if client.may_use(name)]

    def _describe(self, name: str) -> dict[str, Any]:
        gallery = self._backends[name].info()["gallery"] or {}
        fields = {field: gallery.get(field) for field in ("version", "count")}
        return {"name": name, "path": gallery_path(name), **fields}

    def _log_changes(self, unready: dict[str, str]) -> None:
        for name, reason in unready.items():
            if self._unready.get(name) != reason:
                log.warning("gallery %s: not ready: %s", name, reason)
        self._unready = unready


def _client(request: Request) -> Client:
    client: Client = request.state.client
    return client
