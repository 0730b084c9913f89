"""Releases: `user_config` of a deployment → a saved checkpoint and a gallery version."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from serve.messages import Release
from stbir.errors import InputError
from stbir.gallery.gallery import open_version
from stbir.model.checkpoint import resolve_pinned
from stbir.storage.folder import Folder
from stbir.storage.manifest import MANIFEST_FILE

log = logging.getLogger(__name__)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ReleaseConfig:
    """The `user_config`, equal for all deployments. `version`: of the gallery; None: the published one."""

    checkpoint: str
    gallery: str
    version: int | None = None


def resolve(user_config: dict[str, Any]) -> Release:
    """The current release of a `ReleaseConfig`.

    Raises InputError for a missing checkpoint or version, or a gallery embedded with another checkpoint.
    """
    try:
        config = TypeAdapter(ReleaseConfig).validate_python(user_config)
    except ValidationError as error:
        detail = error.errors()[0]
        raise InputError(f"user_config: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error
    checkpoint, digest = resolve_pinned(config.checkpoint)
    gallery = Folder(config.gallery)  # an absolute URI: replicas may run in another directory
    if config.version is None and not gallery.exists(MANIFEST_FILE):
        return Release(checkpoint, digest, gallery.uri)
    version = open_version(gallery.uri, digest, config.version).version
    return Release(checkpoint, digest, gallery.uri, version)


class Preloader:
    """Loads a release in a replica before requests use it."""

    def __init__(self, load: Callable[[Release], Any]) -> None:
        self._load = load
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, user_config: dict[str, Any]) -> None:
        """Load a release; Serve's `reconfigure`.

        Waits for the first release only: Serve sends no requests to a replica during `reconfigure`.
        """
        is_first = self._task is None
        self._task = asyncio.create_task(asyncio.to_thread(self._try_load, user_config))
        if is_first:
            await self._task

    def _try_load(self, user_config: dict[str, Any]) -> None:
        """Log an error, which would otherwise end the replica. The rollout reports it by its canary query."""
        try:
            self._load(resolve(user_config))
        except Exception:
            log.exception("%s: not loaded; the replica continues with the releases it has", user_config)
