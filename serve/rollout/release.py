"""From what a deployment is told to serve (`user_config`) to the very checkpoint and gallery version."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from serve.messages import Release
from stbir.errors import InputError
from stbir.gallery.gallery import open_version
from stbir.model.checkpoint import pinned
from stbir.storage.folder import Folder
from stbir.storage.manifest import NAME

log = logging.getLogger(__name__)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Wanted:
    """The `user_config` of every deployment, the same for all. `version`: of the gallery; None: what is
    published when it is read."""

    checkpoint: str
    gallery: str
    version: int | None = None


def resolve(user_config: dict[str, Any]) -> Release:
    """The release that is wanted, as it stands now.

    Raises InputError where there is no such checkpoint or version, or another checkpoint made the gallery.
    """
    try:
        wanted = TypeAdapter(Wanted).validate_python(user_config)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"user_config: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    checkpoint, digest = pinned(wanted.checkpoint)
    gallery = Folder(wanted.gallery)  # absolute: replicas may run in another directory
    if wanted.version is None and not gallery.exists(NAME):
        return Release(checkpoint, digest, gallery.uri)
    version = open_version(gallery.uri, digest, wanted.version).version
    return Release(checkpoint, digest, gallery.uri, version)


class Ahead:
    """Loads what a replica is told to serve before a request asks for it."""

    def __init__(self, load: Callable[[Release], Any]) -> None:
        self._load = load
        self._loading: asyncio.Task[None] | None = None

    async def __call__(self, user_config: dict[str, Any]) -> None:
        """Serve's `reconfigure`. Before the first request it is waited for; later the replica goes on
        answering meanwhile, which a replica that is being reconfigured would not."""
        first = self._loading is None
        self._loading = asyncio.create_task(asyncio.to_thread(self._try, user_config))
        if first:
            await self._loading

    def _try(self, user_config: dict[str, Any]) -> None:
        """What fails is told to who takes the release up; here it would take the replica down with it."""
        try:
            self._load(resolve(user_config))
        except Exception:
            log.exception("%s: cannot be loaded; what was loaded before stays", user_config)
