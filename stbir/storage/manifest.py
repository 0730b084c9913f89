"""The manifest of an artifact: written last, so that what has one is whole."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from stbir.errors import InputError
from stbir.storage.folder import Folder

Kind = Literal["shards", "checkpoint", "gallery", "report", "ablation", "vectors", "hits"]
NAME = "manifest.json"
SCHEMA_VERSION = 1
MADE_BY: dict[Kind, str] = {
    "shards": "ray_jobs/prepare_shards.py",
    "checkpoint": "ray_jobs/train.py",
    "gallery": "ray_jobs/embed_gallery.py",
    "report": "ray_jobs/evaluate.py",
    "ablation": "ray_jobs/ablate.py",
    "vectors": "ray_jobs/gallery.py export",
    "hits": "ray_jobs/search_batch.py",
}


@dataclass(frozen=True)
class Manifest:
    """What an artifact says of itself.

    `digest` covers the content, `made_from` is the digest of the artifact it was made from (empty for
    what was made from pictures), `counts` are whole numbers, `details` whatever else the kind needs.
    """

    kind: Kind
    digest: str
    counts: dict[str, int]
    made_from: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def detail(self, name: str) -> Any:
        """An entry of `details` that this kind must have. Raises InputError where it is missing."""
        if name not in self.details:
            what = f"{self.kind} {self.digest}: details.{name} is missing in its {NAME}"
            raise InputError(f"{what}; make it again with {MADE_BY[self.kind]}")
        return self.details[name]


def write_manifest(folder: Folder, manifest: Manifest) -> None:
    """Publish an artifact. Call it last: a folder without a manifest does not count."""
    folder.write(NAME, json.dumps(asdict(manifest), indent=2, sort_keys=True).encode())


def read_manifest(folder: Folder, kind: Kind, remedy: str | None = None) -> Manifest:
    """The manifest of an artifact of the given kind.

    Raises InputError where there is none, or one of another kind or schema, and says what to do: what
    makes it, unless there is another `remedy`.
    """
    remedy = remedy or f"make it with {MADE_BY[kind]}"
    if not folder.exists(NAME):
        raise InputError(f"{folder.uri}: no {kind} here ({NAME} is missing); {remedy}")
    try:
        manifest = Manifest(**json.loads(folder.read(NAME)))
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder.uri}/{NAME}: not a manifest ({error}); {remedy}") from error
    if manifest.kind != kind:
        raise InputError(f"{folder.uri}: holds a {manifest.kind}, not {kind}; {remedy}")
    if manifest.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"{folder.uri}: schema {manifest.schema_version}, this stbir reads {SCHEMA_VERSION}; {remedy}"
        )
    return manifest


def refuse_other(folder: Folder, kind: Kind) -> None:
    """Raises InputError where something other lies than an artifact of that kind that this stbir reads:
    what writes one kind replaces no other."""
    if folder.exists(NAME):
        read_manifest(folder, kind, "choose another folder to write to, or remove that one")


def write_artifact(
    folder: Folder,
    kind: Kind,
    files: Mapping[str, bytes],
    counts: dict[str, int],
    made_from: str,
    details: dict[str, Any] | None = None,
) -> Manifest:
    """Write files, name → bytes, and last the manifest over them."""
    for name, data in files.items():
        folder.write(name, data)
    manifest = Manifest(kind, content_digest(folder, files), counts, made_from, details or {})
    write_manifest(folder, manifest)
    return manifest


def content_digest(folder: Folder, names: Iterable[str]) -> str:
    """`sha256:…` over the names and bytes of the given files; the order of `names` does not matter."""
    return combined_digest({name: hashlib.sha256(folder.read(name)).hexdigest() for name in names})


def combined_digest(hashes: Mapping[str, str]) -> str:
    """The `content_digest` of files whose SHA-256, name → hexadecimal, is known already."""
    total = hashlib.sha256()
    for name in sorted(hashes):
        total.update(f"{name}\0{hashes[name]}\n".encode())
    return f"sha256:{total.hexdigest()}"
