"""Environment variables and process priorities of Ray Serve. Variables must be set before Ray starts."""

import contextlib
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from stbir.config.choices import BACKEND_ENV, Backend, parse_backend

REPLICA_NICENESS = 10  # of the encoder and fusion replicas

# On a cluster, export these on every node before `ray start` (docs/serve.md).
DEFAULT_VARIABLES = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.http.gateway_errors:middlewares",
    # gRPC between deployments and one event loop a replica cost 20 to 33 % less CPU a search. No code of this
    # project blocks that loop. Direct ingress, which opens a port a replica, is off unless a user enables it.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    # Ray starts workers at niceness 15, which suits batch jobs. These serve interactive requests.
    "RAY_worker_niceness": "0",
}

HAPROXY_ENV = "RAY_SERVE_ENABLE_HA_PROXY"
# For high load: HAProxy instead of Ray's proxy raises throughput by half. Set them for the deploying process
# too. HAProxy requires API keys (serve/http/auth.py).
HAPROXY_VARIABLES = DEFAULT_VARIABLES | {
    HAPROXY_ENV: "1",
    # An ingress that misses health checks is usually busy. HAProxy would send its traffic to Ray's slower
    # proxy, and would not return to it while the load lasts.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "6",
    "RAY_SERVE_HAPROXY_OBSERVE_MARK_DOWN_ENABLED": "0",
    # One other ingress is tried where a connection fails; HAProxy's three tries only prolong an overload.
    "RAY_SERVE_HAPROXY_RETRIES": "1",
    # HAProxy resets idle connections, and uvicorn (0.54) keeps their state until this timeout. With thousands
    # of connections, Ray's 90 s cost half a gigabyte.
    "RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S": "10",
}


def set_defaults(environment: MutableMapping[str, str]) -> None:
    """Set each default variable that the user has not set."""
    for name, value in DEFAULT_VARIABLES.items():
        environment.setdefault(name, value)


def backend_in_force(configured: Backend) -> Backend:
    """The backend of an encoder: for auto, that of STBIR_BACKEND if it is set. Raises InputError."""
    return parse_backend(os.environ.get(BACKEND_ENV, "auto")) if configured == "auto" else configured


def with_low_priority(options: dict[str, Any]) -> dict[str, Any]:
    """Deployment options whose worker processes start at a lower priority than the ingress.

    Imports of a new replica take ten seconds of a core, which would otherwise delay searches.
    """
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    actor = options.get("ray_actor_options", {})
    runtime_env = actor.get("runtime_env", {})
    # Ray ignores `worker_process_setup_hook` in the runtime_env of an actor (2.60), but reads its variable.
    hook = {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.{lower_priority.__name__}"}
    runtime_env = {**runtime_env, "env_vars": {**runtime_env.get("env_vars", {}), **hook}}
    return {**options, "ray_actor_options": {**actor, "runtime_env": runtime_env}}


def lower_priority() -> None:
    """Raise the niceness of this process, so that the ingress can reject searches fast on a busy machine."""
    for thread in Path("/proc/self/task").glob("*"):  # on Linux each thread has its own niceness
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            niceness = os.getpriority(os.PRIO_PROCESS, int(thread.name))  # lowering it would require root
            os.setpriority(os.PRIO_PROCESS, int(thread.name), max(niceness, REPLICA_NICENESS))
