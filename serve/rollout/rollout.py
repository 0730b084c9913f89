"""Rollouts: the active release, and the switch to that of a newer deploy without downtime."""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve.galleries import DEFAULT_GALLERY, release_config
from serve.messages import Release
from serve.rollout.app_status import POLL_S, AppStatusWatch
from serve.rollout.records import DeployRecord, ReleaseRecords

log = logging.getLogger(__name__)
GALLERY_RETRY_S = 2.0  # until a gallery is published
FAILURE_RETRY_S = 30.0  # after a failed rollout
BACKPRESSURE_RETRY_S = 0.2


@dataclass(frozen=True)
class ActiveRelease:
    """A release that has answered a canary query. `info`: its description for /v1/info."""

    release: Release
    info: dict[str, Any]


@dataclass(frozen=True)
class Deploy:
    """One deploy: its `user_config`, of all galleries, and its time, in seconds since the epoch."""

    user_config: dict[str, Any]
    deployed_at_s: float

    @property
    def key(self) -> str:
        """Its name in the records, equal in all processes."""
        config = json.dumps(self.user_config, sort_keys=True).encode()
        return f"{self.deployed_at_s!r}/{hashlib.sha256(config).hexdigest()[:16]}"


class Rollout:
    """Activates the release of each deploy for one gallery, that of `records`.

    A release becomes active once all replicas have loaded it and a canary query is answered.

    Until then, and after a failure, the previous release stays active. The first ingress that resolves a
    deploy records its release; all others read that record (docs/decisions/0023).

    Serve's controller reports a deploy: its time and configuration together. Serve's `reconfigure` only comes
    earlier, or not at all for a repeated deploy, so a late one delays nothing by more than POLL_S.
    """

    def __init__(
        self, sketch: Any, text: Any, fusion: Any, records: ReleaseRecords, watch: AppStatusWatch
    ) -> None:
        self.sketch, self.text, self.fusion = sketch, text, fusion
        self.active: ActiveRelease | None = None
        self.failure: str | None = None  # why the release of the newest deploy is not active
        self._records, self._watch = records, watch
        self._user_config: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def gallery(self) -> str:
        """The name of the gallery."""
        return self._records.gallery

    @property
    def running(self) -> frozenset[str]:
        """The deployments with a running replica, as last reported."""
        return self._watch.status.running if self._watch.status else frozenset()

    @property
    def is_status_current(self) -> bool:
        """Whether the controller has reported `running` within `app_status.MAX_AGE_S`."""
        return self._watch.is_current

    async def start(self, user_config: dict[str, Any]) -> None:
        """Start the rollout of a deploy; cancels one in progress.

        Waits for the first release. Raises its error if no release has been active; for another gallery than
        the default one it is a failure that is retried, so that the other galleries are served.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._user_config = user_config
        await self._watch.refresh()
        deploy = self._latest()
        is_active = False
        if self.active is None:
            try:
                await self._activate_first(deploy)
            except Exception as error:
                if self.gallery == DEFAULT_GALLERY:
                    raise
                self._record_failure(deploy, error)
            is_active = self._is_complete()
        self._task = asyncio.create_task(self._follow(deploy, is_active))

    async def _activate_first(self, deploy: Deploy) -> None:
        """A late ingress falls back to the release in force if that of the newest deploy fails."""
        try:
            await self._activate(deploy)
        except Exception as error:
            previous = await asyncio.to_thread(self._records.active)
            if previous is None:
                raise
            self._record_failure(deploy, error)
            self.active = await self._load_everywhere(previous)

    async def _follow(self, deploy: Deploy, is_active: bool) -> None:
        """Activate `deploy` unless it is active, then each later deploy."""
        while True:
            if not is_active:
                is_active = await self._try_activate(deploy)
            end_s = time.monotonic() + self._interval_s()
            while (latest := self._latest()) == deploy and time.monotonic() < end_s:
                await asyncio.sleep(min(POLL_S, self._interval_s()))
            deploy, is_active = latest, is_active and latest == deploy

    def _latest(self) -> Deploy:
        """The latest deploy. `start` may be called for an earlier one, while a later one is reported."""
        status = self._watch.status
        assert status is not None  # `start` has read it
        config = self._user_config if status.user_config is None else status.user_config
        return Deploy(config, status.deployed_at_s)

    def _interval_s(self) -> float:
        if self.failure is not None:
            return FAILURE_RETRY_S
        return POLL_S if self._is_complete() else GALLERY_RETRY_S

    async def _try_activate(self, deploy: Deploy) -> bool:
        try:
            await self._activate(deploy)
        except Exception as error:
            self._record_failure(deploy, error)
        return self._is_complete()

    def _is_complete(self) -> bool:
        """Whether the release of the newest deploy answers searches."""
        return self.failure is None and self.active is not None and self.active.release.version is not None

    def _record_failure(self, deploy: Deploy, error: Exception) -> None:
        config = release_config(deploy.user_config, self.gallery)
        failure = f"{config}: {error.cause if isinstance(error, RayTaskError) else error}"
        if failure != self.failure:
            message = "gallery %s: %s: rollout failed; the previous release stays active"
            log.error(message, self.gallery, config, exc_info=error)
        self.failure = failure

    async def _activate(self, deploy: Deploy) -> None:
        release = await self._resolve(deploy)
        active = await self._load_everywhere(release)
        if release.version is not None:
            await asyncio.to_thread(self._records.set_active, deploy.key)
        self.active, self.failure = active, None
        log.info("gallery %s: active release: %s", self.gallery, release)

    async def _resolve(self, deploy: Deploy) -> Release:
        """The release of a deploy: its record, made now if there is none and a gallery is published."""
        if (record := await asyncio.to_thread(self._records.of_deploy, deploy.key)) is None:
            config = release_config(deploy.user_config, self.gallery)
            release = await asyncio.to_thread(self._unchanged_release, deploy)
            release = release or await _retry_backpressure(lambda: self.fusion.resolve.remote(config))
            assert release is not None
            if release.version is None:
                return release
            time_s, user_config = deploy.deployed_at_s, deploy.user_config
            own = DeployRecord.of(release, self._records.built_by, time_s, user_config)
            record = await asyncio.to_thread(self._records.add, deploy.key, own)
            log.info("gallery %s: deploy: %s", self.gallery, record)
        return record.release

    def _unchanged_release(self, deploy: Deploy) -> Release | None:
        """The release of the deploy before, if this deploy changes other galleries only."""
        before = self._records.before(deploy.key)
        if before is None or before.user_config == deploy.user_config:
            return None
        old, new = (release_config(each.user_config, self.gallery) for each in (before, deploy))
        return before.release if old == new else None

    async def _load_everywhere(self, release: Release) -> ActiveRelease:
        """Send a canary query, then load the release in all replicas."""
        info = await _retry_backpressure(lambda: self._canary(release))
        if release.version is not None:
            await asyncio.gather(*map(self._load, (self.sketch, self.text, self.fusion), [release] * 3))
        return ActiveRelease(release, info)

    async def _load(self, deployment: Any, release: Release) -> None:
        """Load a release in all replicas, so that no request waits for it. A replica may die meanwhile."""
        try:
            results = await deployment.broadcast("load", release).results_async(return_exceptions=True)
        except DeploymentUnavailableError:
            return  # scaled to zero: a new replica loads it at its start
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, RayActorError):
                raise result

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
