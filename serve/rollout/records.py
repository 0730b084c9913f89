"""Records of releases: what each deploy resolved to, and the release in force.

Ray's GCS stores them, as it stores the target state of Serve: every replica reads the same, however late it
starts.
"""

import json
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Protocol

from ray.experimental import internal_kv

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
    """

    release: Release
    built_by: str
    deployed_at: str
    resolved_at: str

    @classmethod
    def of(cls, release: Release, built_by: str, deployed_at_s: float) -> "DeployRecord":
        """The record of a release that is resolved now. `deployed_at_s`: seconds since the epoch."""
        deployed_at = datetime.fromtimestamp(deployed_at_s, UTC)
        return cls(release, built_by, deployed_at.isoformat(), datetime.now(UTC).isoformat())


class ReleaseRecords:
    """The records of one built application; a later build starts without records.

    Each deploy has keys of its own, which start with its time. So the newest is that of the latest deploy in
    whichever order ingresses write them, with no value that two of them overwrite.
    """

    def __init__(self, store: Store, built_by: str = "") -> None:
        """`built_by`: user and host of this process, which builds the application."""
        self.built_by, self._scope, self._store = built_by, uuid.uuid4().hex, store

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

    def active_checkpoint(self) -> str | None:
        """The checkpoint of the release in force."""
        release = self.active()
        return None if release is None else release.checkpoint

    def newest(self) -> Release | None:
        """The release of the latest deploy, which may not have answered a canary query."""
        return self._of_latest("deploy")

    def _key(self, *parts: str) -> str:
        return "/".join(("release", self._scope, *parts))

    def _of_latest(self, kind: str) -> Release | None:
        prefix = self._key(kind, "")
        deploys = [key.removeprefix(prefix) for key in self._store.keys(prefix)]
        if not deploys:
            return None
        record = self.of_deploy(max(deploys, key=lambda deploy: float(deploy.partition("/")[0])))
        return None if record is None else record.release
