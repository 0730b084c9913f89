"""Records of releases: what each deploy resolved to, and the release in force.

Ray's GCS stores them, as it stores the target state of Serve: every replica reads the same, however late it
starts.
"""

import json
import uuid
from copy import copy
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ray.experimental import internal_kv

from serve.galleries import DEFAULT_GALLERY
from serve.messages import Release

_NAMESPACE = "stbir"


class Store(Protocol):
    """A durable store of small values that all replicas share."""

    def get(self, key: str) -> bytes | None:
        """The value of a key; None if it is missing."""

    def put(self, key: str, value: bytes, overwrite: bool) -> None:
        """Store a value. Without `overwrite`, a value that exists stays, atomically."""

    def keys(self, prefix: str) -> list[str]:
        """The keys that start with a prefix."""


class GcsStore:
    """The key-value store of Ray's GCS, where Serve stores its own state."""

    def get(self, key: str) -> bytes | None:
        """The value of a key; None if it is missing."""
        value: bytes | None = internal_kv._internal_kv_get(key, namespace=_NAMESPACE)
        return value

    def put(self, key: str, value: bytes, overwrite: bool) -> None:
        """Store a value. Without `overwrite`, a value that exists stays, atomically."""
        internal_kv._internal_kv_put(key, value, overwrite=overwrite, namespace=_NAMESPACE)

    def keys(self, prefix: str) -> list[str]:
        """The keys that start with a prefix."""
        return [key.decode() for key in internal_kv._internal_kv_list(prefix, namespace=_NAMESPACE)]


@dataclass(frozen=True)
class DeployRecord:
    """What one deploy resolved to. `built_by`: user and host of the process that built the application.

    `deployed_at` is the time of the deploy, `resolved_at` that of this record, both in UTC (ISO 8601).
    `user_config`: what was deployed, of all galleries.
    """

    release: Release
    built_by: str
    deployed_at: str
    resolved_at: str
    user_config: dict[str, Any]

    @classmethod
    def of(
        cls, release: Release, built_by: str, deployed_at_s: float, user_config: dict[str, Any]
    ) -> "DeployRecord":
        """The record of a release that is resolved now. `deployed_at_s`: seconds since the epoch."""
        deployed_at = datetime.fromtimestamp(deployed_at_s, UTC)
        return cls(release, built_by, deployed_at.isoformat(), datetime.now(UTC).isoformat(), user_config)


class ReleaseRecords:
    """The records of one gallery of a built application; a later build starts without records.

    Each deploy has keys of its own, which start with its time. So the newest is that of the latest deploy in
    whichever order ingresses write them, with no value that two of them overwrite.
    """

    def __init__(self, store: Store, built_by: str = "", gallery: str = DEFAULT_GALLERY) -> None:
        """`built_by`: user and host of this process, which builds the application."""
        self.built_by, self.gallery, self._store = built_by, gallery, store
        self._scope = uuid.uuid4().hex

    def of_gallery(self, name: str) -> "ReleaseRecords":
        """The records of another gallery of the same application."""
        records = copy(self)
        records.gallery = name
        return records

    def of_deploy(self, deploy: str) -> DeployRecord | None:
        """The record of a deploy; None until `add`. `deploy`: `serve.rollout.rollout.Deploy.key`."""
        value = self._store.get(self._key("deploy", deploy))
        if value is None:
            return None
        fields = json.loads(value)
        return DeployRecord(**{**fields, "release": Release(**fields["release"])})

    def add(self, deploy: str, record: DeployRecord) -> DeployRecord:
        """Store the record of a deploy unless it has one. Returns the stored one, which never changes."""
        self._store.put(self._key("deploy", deploy), json.dumps(asdict(record)).encode(), overwrite=False)
        stored = self.of_deploy(deploy)
        assert stored is not None
        return stored

    def set_active(self, deploy: str) -> None:
        """Store that the release of a deploy has answered a canary query and is loaded by all replicas."""
        self._store.put(self._key("active", deploy), b"", overwrite=True)

    def active(self) -> Release | None:
        """The release in force: that of the latest deploy of `set_active`; None until there is one."""
        return self._of_latest("active")

    def releases_in_force(self) -> set[Release]:
        """Those of all galleries of the application."""
        prefix = self._prefix("active")
        names = {key.removeprefix(prefix).partition("/")[0] for key in self._store.keys(prefix)}
        releases = (self.of_gallery(name).active() for name in names)
        return {release for release in releases if release is not None}

    def checkpoints_in_force(self) -> set[str]:
        """Those of all galleries: one, unless a gallery could not follow the others to a new one."""
        return {release.checkpoint for release in self.releases_in_force()}

    def newest(self) -> Release | None:
        """The release of the latest deploy, which may not have answered a canary query."""
        return self._of_latest("deploy")

    def before(self, deploy: str) -> DeployRecord | None:
        """The record of the latest deploy before another one; None if there is none."""
        earlier = [each for each in self._deploys("deploy") if _time_s(each) < _time_s(deploy)]
        return self.of_deploy(max(earlier, key=_time_s)) if earlier else None

    def _prefix(self, kind: str) -> str:
        return f"release/{self._scope}/{kind}/"

    def _key(self, kind: str, deploy: str) -> str:
        return f"{self._prefix(kind)}{self.gallery}/{deploy}"

    def _deploys(self, kind: str) -> list[str]:
        prefix = self._key(kind, "")
        return [key.removeprefix(prefix) for key in self._store.keys(prefix)]

    def _of_latest(self, kind: str) -> Release | None:
        deploys = self._deploys(kind)
        record = self.of_deploy(max(deploys, key=_time_s)) if deploys else None
        return None if record is None else record.release


def _time_s(deploy: str) -> float:
    """The time of a deploy, with which its key begins."""
    return float(deploy.partition("/")[0])
