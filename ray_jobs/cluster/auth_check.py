"""Check that a Ray cluster requires an authentication token (RAY_AUTH_MODE=token)."""

import contextlib
import os
from http import HTTPStatus
from pathlib import Path

import httpx
import ray

from ray_jobs.cluster.checks import CheckWarningError
from stbir.errors import InputError


def dashboard_url() -> str | None:
    """URL of the cluster's dashboard; None if the cluster runs without one."""
    url = ray.init(ignore_reinit_error=True, logging_level="error").dashboard_url
    return f"http://{url}" if url else None


def check_token(dashboard: str | None) -> str:
    """Return how the token requirement was verified. `dashboard`: its URL, if there is one.

    Raises InputError if the cluster needs no token. Raises CheckWarningError if RAY_AUTH_MODE is
    "disabled", or if other users of this machine can read the token.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    remedy = "make a token with `ray get-auth-token --generate` and start all nodes with RAY_AUTH_MODE=token"
    if mode == "disabled":
        raise CheckWarningError(
            f"RAY_AUTH_MODE=disabled: anyone who reaches this cluster can run code on it; {remedy}"
        )
    if mode != "token":
        raise InputError(f"RAY_AUTH_MODE: the cluster requires no token; {remedy}, or =disabled")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if "RAY_AUTH_TOKEN" not in os.environ and path.exists() and path.stat().st_mode & 0o077:
        raise CheckWarningError(f"{path}: other users of this machine can read the token; chmod 600 {path}")
    return _call_without_token(dashboard, remedy)


def _call_without_token(dashboard: str | None, remedy: str) -> str:
    """Call the dashboard without a token: a cluster that requires none also accepts calls with one."""
    status = None
    if dashboard:
        with contextlib.suppress(httpx.TransportError):
            status = httpx.get(f"{dashboard}/api/jobs/", trust_env=False, timeout=10).status_code
    if status == HTTPStatus.OK:
        raise InputError(f"the cluster answers at {dashboard} without the token that is set here; {remedy}")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "required"
    return "required by RAY_AUTH_MODE here; not verified, the dashboard cannot be reached"
