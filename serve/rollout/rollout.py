"""Which release the service answers by, and how it goes over to the next without a pause."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError

from serve.messages import Release

log = logging.getLogger(__name__)
MISSING_RETRY_S = 2.0  # how often a gallery that is not there yet is looked for
REFUSED_RETRY_S = 30.0  # how often a release that could not be taken up is tried again
FULL_RETRY_S = 0.2


@dataclass(frozen=True)
class Current:
    """A release that has answered a canary query. `told`: what /v1/info says of it."""

    release: Release
    told: dict[str, Any]


class Changeover:
    """Goes over to a release once the deployments behind the handles have loaded it and answered a canary
    query by it. Until then, and for as long as that fails, the one before answers.
    """

    def __init__(self, sketch: Any, text: Any, fusion: Any) -> None:
        self.sketch, self.text, self.fusion = sketch, text, fusion
        self.current: Current | None = None
        self.refused: str | None = None  # why the release asked for last is not the current one
        self._under_way: asyncio.Task[None] | None = None

    async def to(self, user_config: dict[str, Any]) -> None:
        """Begin to go over to what `serve.rollout.release.Wanted` describes; the newest wish counts.

        The first is waited for. Raises what kept it from answering, where nothing has answered before.
        """
        if self._under_way is not None:
            self._under_way.cancel()
        if self.current is None:
            await self._begin(user_config)
            if self._settled():
                return
        self._under_way = asyncio.create_task(self._follow(user_config))

    async def _begin(self, user_config: dict[str, Any]) -> None:
        """An ingress that comes where the release asked for is refused goes on by what fusion answered by."""
        try:
            await self._take_up(user_config)
        except Exception as error:
            before = await _patiently(lambda: self.fusion.answering.remote())
            if before is None:
                raise
            self._refuse(user_config, error)
            await self._answer_by(before)

    async def _follow(self, user_config: dict[str, Any]) -> None:
        """Take it up; while there is no gallery yet, or what failed may have passed, try again."""
        while True:
            try:
                await self._take_up(user_config)
            except Exception as error:
                self._refuse(user_config, error)
            if self._settled():
                return
            await asyncio.sleep(REFUSED_RETRY_S if self.refused else MISSING_RETRY_S)

    def _settled(self) -> bool:
        """Whether searches are answered by what was asked for."""
        return self.refused is None and self.current is not None and self.current.release.version is not None

    def _refuse(self, user_config: dict[str, Any], error: Exception) -> None:
        reason = f"{user_config}: {error.cause if isinstance(error, RayTaskError) else error}"
        if reason != self.refused:
            log.error("%s is not taken up; the release before goes on", user_config, exc_info=error)
        self.refused = reason

    async def _take_up(self, user_config: dict[str, Any]) -> None:
        await self._answer_by(await _patiently(lambda: self.fusion.resolve.remote(user_config)))
        self.refused = None

    async def _answer_by(self, release: Release) -> None:
        self.current = Current(release, await _patiently(lambda: self._canary(release)))
        log.info("answering by %s", release)

    def _canary(self, release: Release) -> Any:
        """As a search goes: both towers start, and fusion gets their answers un-awaited."""
        sketch = self.sketch.canary.remote(release.checkpoint)
        text = self.text.canary.remote(release.checkpoint)
        return self.fusion.check.remote(release, sketch, text)


async def _patiently(ask: Callable[[], Any]) -> Any:
    """The answer, however full the service is with requests meanwhile."""
    while True:
        try:
            return await ask()
        except BackPressureError:
            await asyncio.sleep(FULL_RETRY_S)
