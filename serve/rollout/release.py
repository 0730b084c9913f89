"""Releases: `user_config` of a deployment → a saved checkpoint and a gallery version."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from serve.galleries import release_config
from serve.messages import Release
from serve.rollout.records import ReleaseRecords
from stbir.errors import InputError
from stbir.gallery.gallery import open_version
from stbir.model.checkpoint import resolve_pinned
from stbir.storage.folder import Folder
from stbir.storage.manifest import MANIFEST_FILE

log = logging.getLogger(__name__)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ReleaseConfig:
    """The part of one gallery in a `user_config`. `version`: of the gallery; None: the published one."""

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
    """Loads the release in force, and that of the newest deploy, in a replica before requests use it."""

    def __init__(self, load: Callable[[Release], Any], records: ReleaseRecords) -> None:
        self._load, self._records = load, records
        self._is_started = False

    async def __call__(self, user_config: dict[str, Any]) -> None:
        """Load the releases at the start of the replica, before it counts as running; Serve's `reconfigure`.

        Later ones are loaded by `serve.rollout.rollout.Rollout`: Serve sends no requests to a replica during
        `reconfigure`. Raises an error of the release in force.
        """
        if not self._is_started:
            self._is_started = True
            await asyncio.to_thread(self._load_first, user_config)

    def _load_first(self, user_config: dict[str, Any]) -> None:
        active = self._records.active()
        if active is not None:
            self._load(active)
        try:
            newest = self._records.newest() or active
            newest = newest or resolve(release_config(user_config, self._records.gallery))
            if newest != active:
                self._load(newest)
        except Exception:
            # Not raised, which would end the replica: the rollout reports it by its canary query.
            log.exception("%s: not loaded", user_config)
