"""The paths of the routes that middleware treats by kind."""

from starlette.types import Scope

V1, SEARCH, EXPLAIN, THUMBNAILS = "/v1/", "/v1/search", "/v1/explain", "/v1/photos/"
PROBES = ("/healthz", "/readyz")


def route_path(scope: Scope) -> str:
    """The path of an HTTP request below the prefix at which Ray Serve mounts the application."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "").rstrip("/"))
