"""What Ray Serve reads from the environment of its own processes. It must be there before Ray starts."""

from collections.abc import MutableMapping

# On a cluster: exported on every node before `ray start` (docs/operations.md).
WANTED = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.lost:middlewares",
}


def set_defaults(environment: MutableMapping[str, str]) -> None:
    """Add what is not set; a user's own setting wins."""
    for name, value in WANTED.items():
        environment.setdefault(name, value)
