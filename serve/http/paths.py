"""The paths of the routes that middleware treats by kind."""

import re

from starlette.types import Scope

from serve.galleries import DEFAULT_GALLERY

V1, SEARCH, EXPLAIN, THUMBNAILS = "/v1/", "/v1/search", "/v1/explain", "/v1/photos/"
PROBES = ("/healthz", "/readyz")
GALLERIES = "/v1/galleries"
_OF_GALLERY = re.compile(rf"^{GALLERIES}/([^/]+)(?=/)")


def route_path(scope: Scope) -> str:
    """The path of an HTTP request below the prefix at which Ray Serve mounts the application.

    A route of a gallery has the path of the same route of the default one: `/v1/search`.
    """
    return _OF_GALLERY.sub("/v1", _path(scope), count=1)


def gallery_name(scope: Scope) -> str:
    """The gallery of an HTTP request: that of its path, which may not exist, else the default one."""
    match = _OF_GALLERY.match(_path(scope))
    return match[1] if match else DEFAULT_GALLERY


def gallery_path(name: str) -> str:
    """The path of the routes of a gallery."""
    return "/v1" if name == DEFAULT_GALLERY else f"{GALLERIES}/{name}"


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "").rstrip("/"))
