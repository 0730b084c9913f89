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


class GcsStore:
    """The key-value store of Ray's GCS, where Serve stores its own state."""

    def get(self, key: str) -> bytes | None:
        """The value of a key; None if it is missing."""
        value: bytes | None = internal_kv._internal_kv_get(key, namespace=_NAMESPACE)
        return value

    def put(self, key: str, value: bytes, overwrite: bool) -> None:
        """Store a value. Without `overwrite`, a value that exists stays, atomically."""
        internal_kv._internal_kv_put(key, value, overwrite=overwrite, namespace=_NAMESPACE)


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
    """The records of one built application; a later build starts without records."""

    def __init__(self, store: Store, built_by: str = "") -> None:
        """`built_by`: user and host of this process, which builds the application."""
        self.built_by, self._scope, self._store = built_by, uuid.uuid4().hex, store

    def of_deploy(self, deploy: str) -> DeployRecord | None:
        """The record of a deploy; None until `add`."""
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
        self._write("newest", stored.release)
        return stored

    def set_active(self, release: Release) -> None:
        """Store the release in force, which has answered a canary query."""
        self._write("active", release)

    def active(self) -> Release | None:
        """The release in force; None until the first is."""
        return self._read("active")

    def active_checkpoint(self) -> str | None:
        """The checkpoint of the release in force."""
        release = self.active()
        return None if release is None else release.checkpoint

    def newest(self) -> Release | None:
        """The release of the newest deploy, which may not have answered a canary query."""
        return self._read("newest")

    def _key(self, *parts: str) -> str:
        return "/".join(("release", self._scope, *parts))

    def _write(self, name: str, release: Release) -> None:
        self._store.put(self._key(name), json.dumps(asdict(release)).encode(), overwrite=True)

    def _read(self, name: str) -> Release | None:
        value = self._store.get(self._key(name))
        return None if value is None else Release(**json.loads(value))
