"""The state of the application as Serve's controller reports it: no request, so no place in a queue."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationDetails, ReplicaState, ServeInstanceDetails

from stbir.errors import InputError

log = logging.getLogger(__name__)
INGRESS = "Ingress"  # the name of the deployment of `serve.deployments.ingress`
POLL_S = 2.0
MAX_AGE_S = 60.0  # of a status that tells whether replicas run; a controller restarts in less
_STATES_OF_A_SERVING_REPLICA = (ReplicaState.RUNNING, ReplicaState.UPDATING)


@dataclass(frozen=True)
class AppStatus:
    """`deployed_at_s`: the time of the last deploy, in seconds since the epoch. `running`: the deployments
    with a replica that serves. `user_config`: of the ingress in that deploy; None if its file has none."""

    deployed_at_s: float
    running: frozenset[str]
    user_config: dict[str, Any] | None = None


class AppStatusWatch:
    """The last known status of the application. A controller that restarts leaves it unchanged."""

    def __init__(self, read: Callable[[], AppStatus]) -> None:
        self._read = read
        self._task: asyncio.Task[None] | None = None
        self.status: AppStatus | None = None
        self._requested_at_s = -math.inf  # monotonic

    @property
    def is_current(self) -> bool:
        """Whether the status is at most MAX_AGE_S old."""
        return time.monotonic() - self._requested_at_s <= MAX_AGE_S

    async def refresh(self) -> None:
        """Read the status now. The first call starts to read it every POLL_S seconds."""
        requested_at_s = time.monotonic()
        status = await asyncio.to_thread(self._read)
        if requested_at_s >= self._requested_at_s:  # not an earlier one that came later
            self.status, self._requested_at_s = status, requested_at_s
        if self._task is None:
            self._task = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except Exception:
                log.warning("the status of the application is not updated", exc_info=True)


def read_app_status(name: str) -> AppStatus:
    """The status of a Serve application. Raises InputError if Serve has none of that name."""
    # Not `serve.status()`, which leaves the configuration out.
    details = ServeInstanceDetails(**_get_global_client().get_serve_details())
    if (app := details.applications.get(name)) is None:
        raise InputError(f"{name}: Ray Serve has no such application")
    return app_status(app)


def app_status(app: ApplicationDetails) -> AppStatus:
    """The status in what Serve's controller reports of an application."""
    running = {
        deployment
        for deployment, each in app.deployments.items()
        if any(replica.state in _STATES_OF_A_SERVING_REPLICA for replica in each.replicas)
    }
    return AppStatus(app.last_deployed_time_s, frozenset(running), _user_config(app))


def _user_config(app: ApplicationDetails) -> dict[str, Any] | None:
    deployments = app.deployed_app_config.deployments if app.deployed_app_config else []
    configs = [each.user_config for each in deployments if each.name == INGRESS]
    return configs[0] if configs and isinstance(configs[0], dict) else None
