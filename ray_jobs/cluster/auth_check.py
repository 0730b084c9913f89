"""Whether a cluster lets strangers in: RAY_AUTH_MODE says so here, a call without the token shows it."""

import os
from http import HTTPStatus
from pathlib import Path

import httpx
import ray

from ray_jobs.cluster.checks import DoubtError
from stbir.errors import InputError


def dashboard() -> str | None:
    """Where the cluster's answers to strangers can be tried; it has none where it began without."""
    url = ray.init(ignore_reinit_error=True, logging_level="error").dashboard_url
    return f"http://{url}" if url else None


def token_asked(at: str | None) -> str:
    """Says how far that is known; `at`: the dashboard. Raises InputError where strangers come in, DoubtError
    where that was chosen, or others of this machine may read the token."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    remedy = "make a token with `ray get-auth-token --generate` and start all nodes with RAY_AUTH_MODE=token"
    if mode == "disabled":
        raise DoubtError(f"RAY_AUTH_MODE=disabled: whoever reaches this cluster runs code on it; {remedy}")
    if mode != "token":
        raise InputError(f"RAY_AUTH_MODE: the cluster asks nobody for a token; {remedy}, or =disabled")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if "RAY_AUTH_TOKEN" not in os.environ and path.exists() and path.stat().st_mode & 0o077:
        raise DoubtError(f"{path}: others of this machine may read the token; chmod 600 {path}")
    return _asked_of_strangers(at, remedy)


def _asked_of_strangers(at: str | None, remedy: str) -> str:
    """A head that wants no token takes one all the same: only a call without any tells."""
    try:
        status = httpx.get(f"{at}/api/jobs/", trust_env=False, timeout=10).status_code if at else None
    except httpx.TransportError:
        status = None
    if status == HTTPStatus.OK:
        raise InputError(f"the cluster answers at {at} without the token that is set here; {remedy}")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "asked for"
    return "asked for, as RAY_AUTH_MODE says here; whether the cluster does cannot be tried from here"
