"""The state of the application as Serve's controller reports it: no request, so no place in a queue."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ray import serve
from ray.serve.schema import ReplicaState

from stbir.errors import InputError

log = logging.getLogger(__name__)
POLL_S = 2.0
_STATES_OF_A_SERVING_REPLICA = (ReplicaState.RUNNING, ReplicaState.UPDATING)


@dataclass(frozen=True)
class AppStatus:
    """`deployed_at_s`: the time of the last deploy, in seconds since the epoch. `running`: the deployments
    with a replica that serves."""

    deployed_at_s: float
    running: frozenset[str]


class AppStatusWatch:
    """The last known status of the application. A controller that restarts leaves it unchanged."""

    def __init__(self, read: Callable[[], AppStatus]) -> None:
        self._read = read
        self._task: asyncio.Task[None] | None = None
        self.status: AppStatus | None = None

    async def refresh(self) -> AppStatus:
        """Read the status now. The first call starts to read it every POLL_S seconds."""
        self.status = await asyncio.to_thread(self._read)
        if self._task is None:
            self._task = asyncio.create_task(self._poll())
        return self.status

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except Exception:
                log.warning("the status of the application is not updated", exc_info=True)


def read_app_status(name: str) -> AppStatus:
    """The status of a Serve application. Raises InputError if Serve has none of that name."""
    app = serve.status().applications.get(name)
    if app is None:
        raise InputError(f"{name}: Ray Serve has no such application")
    running = {
        deployment
        for deployment, overview in app.deployments.items()
        if any(overview.replica_states.get(state) for state in _STATES_OF_A_SERVING_REPLICA)
    }
    return AppStatus(app.last_deployed_time_s, frozenset(running))
