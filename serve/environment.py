"""What Ray Serve reads from the environment of its own processes. It must be there before Ray starts."""

import contextlib
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

BEHIND_INGRESS = 10  # the niceness of towers and of fusion

# On a cluster: exported on every node before `ray start` (docs/operations.md).
WANTED = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.http.gateway_errors:middlewares",
    # gRPC between deployments, one event loop a replica: a search costs a fifth to a third less CPU. Nothing
    # of ours blocks that loop. Ports of the replicas' own are left to those who ask for them.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    # Ray starts workers at 15, for jobs behind which people work. These are what people wait for.
    "RAY_worker_niceness": "0",
}

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
# Beside these, for load: HAProxy instead of Ray's own proxy answers half as many more searches a second. It
# must be set for whoever deploys, too, and there must be keys (serve/http/auth.py).
UNDER_LOAD = WANTED | {
    HAPROXY: "1",
    # An ingress that is late to say that it is well is busy, not gone: the way round it, Ray's own proxy, is
    # slower still, and it would not come back while the load lasts.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "6",
    "RAY_SERVE_HAPROXY_OBSERVE_MARK_DOWN_ENABLED": "0",
    # HAProxy with thousands of connections resets the idle ones among them, and uvicorn (0.54) keeps what it
    # knows of each until this has passed: at Ray's 90 s half a gigabyte.
    "RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S": "10",
}


def set_defaults(environment: MutableMapping[str, str]) -> None:
    """Add what is not set; a user's own setting wins."""
    for name, value in WANTED.items():
        environment.setdefault(name, value)


def behind_ingress(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a deployment whose processes let the ingress go first, from before they import anything:
    to start another replica takes ten seconds of a core, and searches would wait for that."""
    actor = options.get("ray_actor_options", {})
    given = actor.get("runtime_env", {})
    # What Ray makes of `worker_process_setup_hook` of a job; of an actor's it makes nothing (2.60).
    hook = {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.{yield_to_ingress.__name__}"}
    runtime_env = {**given, "env_vars": {**given.get("env_vars", {}), **hook}}
    return {**options, "ray_actor_options": {**actor, "runtime_env": runtime_env}}


def yield_to_ingress() -> None:
    """Let the process that takes requests in go before this one, where a machine has more to do than it can:
    one that is slow to turn searches away keeps them all waiting."""
    for thread in Path("/proc/self/task").glob("*"):  # there (Linux) each thread has a niceness of its own
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            niceness = os.getpriority(os.PRIO_PROCESS, int(thread.name))  # only root could lessen it
            os.setpriority(os.PRIO_PROCESS, int(thread.name), max(niceness, BEHIND_INGRESS))
