"""The ingress: starts the towers together, passes their answers on un-awaited, keeps the deadline."""

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from ray import serve

from serve.deployments.coalescing import Answers, Together
from serve.deployments.error_mapping import full, problem_of, translated, unavailable
from serve.http import access_log, admission
from serve.http.access_log import AccessLog
from serve.http.admission import TurnedAway
from serve.http.api import create_app
from serve.http.auth import guard
from serve.http.cors import allowing
from serve.messages import Found, Query, Release
from serve.metrics import RequestMeter
from serve.problem import Problem
from serve.rollout.rollout import Changeover
from serve.settings import Gathering, Limits, Settings, always_there

log = logging.getLogger(__name__)


class Searcher:
    """What the HTTP routes ask for, answered by the deployments behind the handles.

    Raises Problem for everything a client should hear of.
    """

    def __init__(
        self,
        sketch: Any,
        text: Any,
        fusion: Any,
        limits: Limits,
        gathering: Gathering,
        kept: Sequence[Any] | None = None,
    ) -> None:
        """`kept`: those of the three handles behind which there is a replica at any time; None: all."""
        self.sketch, self.text, self.fusion = sketch, text, fusion
        self.limits = limits
        self._kept = (sketch, text, fusion) if kept is None else kept
        self.changeover = Changeover(sketch, text, fusion)
        self._together = Together(self._search, gathering, self._full)

    async def search(self, query: Query) -> Found:
        """The hits of a query."""
        try:
            return await self._together(query)
        except Problem as problem:
            if not problem.lost:
                raise
            return await self._together(query)  # it changes nothing: another replica may answer

    async def _search(self, queries: list[Query]) -> Answers:
        """The hits of each query, or the Problem that it has; all by one release."""
        # Both towers start here and neither is awaited: only hits come back to this process.
        release = self._release()
        until = [query.deadline for query in queries]
        sketch = self._encode(self.sketch, [query.sketch for query in queries], release, until)
        text = self._encode(self.text, [query.text for query in queries], release, until)
        # What is left of them for fusion.
        rest = [replace(query, sketch=None, text=None) for query in queries]
        answers = await self._answer(self.fusion.search.remote(release, sketch, text, rest), sketch, text)
        return [
            problem_of(answer, self.limits.retry_after_s) if isinstance(answer, Exception) else answer
            for answer in answers
        ]

    def _encode(self, tower: Any, items: list[Any], release: Release, until: list[float]) -> Any:
        """The un-awaited answer of a tower; None where no query has anything for it."""
        wanted = any(item is not None for item in items)
        return tower.encode.remote(items, release.checkpoint, until) if wanted else None

    async def thumbnail(self, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo, empty where it has none."""
        data: bytes = await self._answer(self.fusion.thumbnail.remote(self._release(), photo_id))
        return data

    def info(self) -> dict[str, Any]:
        """What model and gallery are; the gallery is None while none is published."""
        return {} if self.changeover.current is None else self.changeover.current.told

    async def ready(self) -> dict[str, Any]:
        """By what searches are answered, and why not by what was asked for last, where that is so.

        Raises Problem where no search would be answered.
        """
        release = self._release()
        await asyncio.gather(*(self._there(deployment) for deployment in self._kept))
        told = {"checkpoint": release.digest, "gallery_version": release.version}
        return {**told, "refused": self.changeover.refused}

    async def _there(self, deployment: Any) -> None:
        try:
            await self._answer(deployment.ready.remote())
        except Problem as problem:
            if problem.status != HTTPStatus.TOO_MANY_REQUESTS:
                raise  # one that is full is there

    def _release(self) -> Release:
        """The one that answers whatever comes now. Raises Problem while there is no gallery."""
        current = self.changeover.current
        if current is None or current.release.version is None:
            raise self._no_gallery()
        return current.release

    def _full(self) -> Problem:
        return full(self.limits.retry_after_s)

    def _no_gallery(self) -> Problem:
        return unavailable("no gallery is published; publish one and try again", self.limits.retry_after_s)

    async def _answer(self, response: Any, *upstream: Any) -> Any:
        try:
            return await translated(response, self.limits.retry_after_s)
        except asyncio.CancelledError:  # the deadline, or a client that has gone: nobody waits for these
            for started in (response, *upstream):
                _cancel(started)
            raise


def _cancel(response: Any) -> None:
    try:
        if response is not None:
            response.cancel()
    except Exception as error:  # Serve raises what it had failed with already: nothing is left to cancel
        log.debug("not cancelled: %s", error)


@serve.ingress()
class Ingress:
    """The deployment that listens; Serve asks it for its FastAPI application once it is constructed."""

    def __init__(self, sketch: Any, text: Any, fusion: Any, settings: Settings) -> None:
        parts = ((sketch, settings.sketch), (text, settings.text), (fusion, settings.fusion))
        kept = [handle for handle, part in parts if always_there(part.options)]
        self.searcher = Searcher(sketch, text, fusion, settings.limits, settings.ingress.together, kept)
        self.gathering, self.origins = settings.ingress.together, settings.cors.origins
        self.guard, self.meter = guard(os.environ), RequestMeter()
        access_log.to_stderr()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Ray Serve passes what to serve (`serve.rollout.release.Wanted`), at start and on change."""
        await self.searcher.changeover.to(user_config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        searcher, most = self.searcher, self.gathering.searches
        away = TurnedAway(full(searcher.limits.retry_after_s))
        noted = AccessLog(allowing(away, self.origins), self.meter)
        admission.keep(lambda inside: noted if inside >= most else None)
        return create_app(
            searcher,
            searcher.limits,
            self.guard,
            self.origins,
            self.meter,
            closed=lambda inside: away if inside >= most else None,
        )
