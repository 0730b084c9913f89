"""The search backend of a gallery: starts both encoders at once, passes their responses on, retries once."""

import asyncio
import logging
from dataclasses import replace
from typing import Any, cast

from serve.deadline import Deadline
from serve.deployments.coalescing import Coalescer, SearchResults
from serve.deployments.error_mapping import map_errors, to_problem, unavailable
from serve.http.wait_estimate import WaitEstimate
from serve.messages import LargePhoto, Negative, Query, Release, SearchResult
from serve.problem import Problem
from serve.rollout.app_status import MAX_AGE_S, AppStatusWatch
from serve.rollout.records import ReleaseRecords
from serve.rollout.rollout import Rollout
from serve.settings import MAX_EXPLANATIONS, Settings
from stbir.embedding.explanation import Explanation, Parts

log = logging.getLogger(__name__)


class Searcher:
    """The search backend of one gallery for the HTTP routes, on top of the deployments' handles.

    Its queue, its groups and its release are those of its gallery. Raises Problem for errors that the client
    should get. `explanation_slots`: shared by the galleries of an ingress.
    """

    def __init__(
        self,
        sketch: Any,
        text: Any,
        fusion: Any,
        rollout: Rollout,
        settings: Settings,
        explanation_slots: asyncio.Semaphore | None = None,
    ) -> None:
        self.sketch, self.text, self.fusion = sketch, text, fusion
        self.rollout, self.limits = rollout, settings.limits
        self._required = settings.required_deployments(rollout.gallery)
        self._coalescer = Coalescer(self._search, settings.ingress.coalescing)
        self._wait = WaitEstimate()
        self._explanation_slots = explanation_slots or asyncio.Semaphore(MAX_EXPLANATIONS)
        self._thumbnail_slots = asyncio.Semaphore(settings.ingress.thumbnails.max_concurrent)

    async def search(self, query: Query) -> SearchResult:
        """The hits of a query."""
        deadline = Deadline.after(query.budget_s)
        with self._wait.measure():
            try:
                return await self._send(query)
            except Problem as problem:
                if not problem.replica_died:
                    raise
            # A search is idempotent, and another replica may answer.
            return await self._send(replace(query, budget_s=deadline.remaining_s))

    @property
    def is_late(self) -> bool:
        """Whether one more search may pass its deadline. Half of it is a margin: waits grow quickly."""
        return self._wait.seconds > self.limits.deadline_s / 2

    async def _send(self, query: Query) -> SearchResult:
        return cast(SearchResult, await map_errors(self._coalescer(query), self.limits.retry_after_s))

    async def _search(self, queries: list[Query]) -> SearchResults:
        """The hits or the Problem of each query, all from one release."""
        # Neither encoder is awaited here. Serve passes their results on: over gRPC, which `serve.environment`
        # sets, through this process, else by reference.
        release = self._release()
        inputs: list[Query | Negative] = []
        for query in queries:
            inputs += [query, *query.without]
        budgets_s = [query.budget_s for query in queries for _ in (query, *query.without)]
        sketch = self._encode(self.sketch, [each.sketch for each in inputs], release, budgets_s)
        texts = [each.text for each in inputs]
        text = self._encode(self.text, texts, release, budgets_s, self.rollout.gallery)
        queries = [query.without_inputs() for query in queries]
        response = self.fusion.search.remote(release, sketch, text, queries)
        return [
            to_problem(result, self.limits.retry_after_s) if isinstance(result, Exception) else result
            for result in await self._result(response, sketch, text)
        ]

    def _encode(
        self, encoder: Any, items: list[Any], release: Release, budgets_s: list[float], *options: str
    ) -> Any:
        """The unawaited response of an encoder; None if all items are None."""
        if all(item is None for item in items):
            return None
        return encoder.encode.remote(items, release.checkpoint, budgets_s, *options)

    async def thumbnail(self, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo; empty if it has none."""
        async with self._thumbnail_slots:
            data: bytes = await self._result(self.fusion.thumbnail.remote(self._release(), photo_id))
        return data

    async def large_photo(self, photo_id: str) -> LargePhoto:
        """The original of a photo, reduced for a screen, and its page on the web."""
        async with self._thumbnail_slots:
            response = self.fusion.large_photo.remote(self._release(), photo_id)
            return cast(LargePhoto, await self._result(response))

    async def explain(self, query: Query, photo_id: str) -> Explanation:
        """What each part of the query's sketch and text contributed to the score of a photo."""
        deadline = Deadline.after(query.budget_s)
        async with self._explanation_slots:
            release, budget_s = self._release(), deadline.remaining_s
            parts = await asyncio.gather(
                self._encode_parts(self.sketch, query.sketch, release, budget_s),
                self._encode_parts(self.text, query.text, release, budget_s, self.rollout.gallery),
            )
            response = self.fusion.explain.remote(release, photo_id, *parts, query.sketch_weight)
            return cast(Explanation, await self._result(response))

    async def _encode_parts(
        self, encoder: Any, item: bytes | str | None, release: Release, budget_s: float, *options: str
    ) -> Parts | None:
        if item is None:
            return None
        response = encoder.encode_parts.remote(item, release.checkpoint, budget_s, *options)
        return cast(Parts, await self._result(response))

    def info(self) -> dict[str, Any]:
        """A description of model and gallery; the gallery is None until one is published."""
        active = self.rollout.active
        return {"model": {}, "gallery": None} if active is None else active.info

    async def ready(self) -> dict[str, Any]:
        """The release that answers searches, and why the newest one was refused, if so.

        Answers from the last known status, without a request to a deployment. Raises Problem if no search
        would be answered, or if the status is too old to tell.
        """
        release = self._release()
        if not self.rollout.is_status_current:
            detail = f"Serve's controller has not reported for {MAX_AGE_S:.0f} s; see its log"
            raise unavailable(detail, self.limits.retry_after_s)
        if missing := sorted(self._required - self.rollout.running):
            detail = f"no replica of {', '.join(missing)} is running; try again"
            raise unavailable(detail, self.limits.retry_after_s)
        return {
            "checkpoint": release.digest,
            "gallery_version": release.version,
            "refused": self.rollout.failure,
        }

    def _release(self) -> Release:
        """The active release. Raises Problem until a gallery is published."""
        active = self.rollout.active
        if active is None or active.release.version is None:
            detail = "no gallery is published; publish one and try again"
            raise unavailable(detail, self.limits.retry_after_s)
        return active.release

    async def _result(self, response: Any, *upstream: Any) -> Any:
        try:
            return await map_errors(response, self.limits.retry_after_s)
        except asyncio.CancelledError:  # the deadline passed or the client disconnected
            for started in (response, *upstream):
                _cancel(started)
            raise


def _cancel(response: Any) -> None:
    try:
        if response is not None:
            response.cancel()
    except Exception as error:  # Serve raises the error of a response that has already failed
        log.debug("not cancelled: %s", error)


def searchers(
    sketch: Any,
    text: Any,
    fusions: dict[str, Any],
    settings: Settings,
    records: ReleaseRecords,
    watch: AppStatusWatch,
) -> dict[str, Searcher]:
    """The searcher of each gallery by its name. They share the encoders."""
    slots = asyncio.Semaphore(MAX_EXPLANATIONS)

    def searcher(name: str, fusion: Any) -> Searcher:
        rollout = Rollout(sketch, text, fusion, records.of_gallery(name), watch)
        return Searcher(sketch, text, fusion, rollout, settings, slots)

    return {name: searcher(name, fusion) for name, fusion in fusions.items()}
