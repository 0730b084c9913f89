"""Rollouts: the active release, and the switch to the next one without downtime."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError

from serve.messages import Release

log = logging.getLogger(__name__)
GALLERY_RETRY_S = 2.0  # until a gallery is published
FAILURE_RETRY_S = 30.0  # after a failed rollout
BACKPRESSURE_RETRY_S = 0.2


@dataclass(frozen=True)
class ActiveRelease:
    """A release that has answered a canary query. `info`: its description for /v1/info."""

    release: Release
    info: dict[str, Any]


class Rollout:
    """Activates a release once the deployments behind the handles have answered a canary query with it.

    Until then, and after a failure, the previous release stays active.
    """

    def __init__(self, sketch: Any, text: Any, fusion: Any) -> None:
        self.sketch, self.text, self.fusion = sketch, text, fusion
        self.active: ActiveRelease | None = None
        self.failure: str | None = None  # why the newest release is not active
        self._task: asyncio.Task[None] | None = None

    async def start(self, user_config: dict[str, Any]) -> None:
        """Start the rollout of a `serve.rollout.release.ReleaseConfig`; cancels one in progress.

        Waits for the first release. Raises its error if no release has been active.
        """
        if self._task is not None:
            self._task.cancel()
        if self.active is None:
            await self._activate_first(user_config)
            if self._is_complete():
                return
        self._task = asyncio.create_task(self._retry(user_config))

    async def _activate_first(self, user_config: dict[str, Any]) -> None:
        """A new ingress replica falls back to fusion's last release if the configured one fails."""
        try:
            await self._activate(user_config)
        except Exception as error:
            previous = await _retry_backpressure(lambda: self.fusion.last_release.remote())
            if previous is None:
                raise
            self._record_failure(user_config, error)
            await self._switch_to(previous)

    async def _retry(self, user_config: dict[str, Any]) -> None:
        """Try to activate until it succeeds and a gallery is published."""
        while True:
            try:
                await self._activate(user_config)
            except Exception as error:
                self._record_failure(user_config, error)
            if self._is_complete():
                return
            await asyncio.sleep(FAILURE_RETRY_S if self.failure else GALLERY_RETRY_S)

    def _is_complete(self) -> bool:
        """Whether the newest release answers searches."""
        return self.failure is None and self.active is not None and self.active.release.version is not None

    def _record_failure(self, user_config: dict[str, Any], error: Exception) -> None:
        failure = f"{user_config}: {error.cause if isinstance(error, RayTaskError) else error}"
        if failure != self.failure:
            log.error("%s: rollout failed; the previous release stays active", user_config, exc_info=error)
        self.failure = failure

    async def _activate(self, user_config: dict[str, Any]) -> None:
        await self._switch_to(await _retry_backpressure(lambda: self.fusion.resolve.remote(user_config)))
        self.failure = None

    async def _switch_to(self, release: Release) -> None:
        self.active = ActiveRelease(release, await _retry_backpressure(lambda: self._canary(release)))
        log.info("active release: %s", release)

    def _canary(self, release: Release) -> Any:
        """Send a canary query the same way as a search: fusion gets the encoders' unawaited responses."""
        sketch = self.sketch.canary.remote(release.checkpoint)
        text = self.text.canary.remote(release.checkpoint)
        return self.fusion.check.remote(release, sketch, text)


async def _retry_backpressure(call: Callable[[], Any]) -> Any:
    """The result of `call`, retried while the service is at capacity."""
    while True:
        try:
            return await call()
        except BackPressureError:
            await asyncio.sleep(BACKPRESSURE_RETRY_S)
