"""Manifest of an artifact. It is written last: a folder with a manifest is complete."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

from stbir.errors import InputError
from stbir.storage.folder import Folder

Kind = Literal["shards", "checkpoint", "gallery", "report", "ablation", "vectors", "hits"]
MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION = 1  # raised only by a change that readers of the earlier version would misread
PRODUCERS: dict[Kind, str] = {
    "shards": "ray_jobs/prepare_shards.py",
    "checkpoint": "ray_jobs/train.py, or ray_jobs/init_checkpoint.py for CLIP without training",
    "gallery": "ray_jobs/embed_gallery.py",
    "report": "ray_jobs/evaluate.py",
    "ablation": "ray_jobs/ablate.py",
    "vectors": "ray_jobs/gallery.py export",
    "hits": "ray_jobs/search_batch.py",
}


@dataclass(frozen=True)
class Manifest:
    """Description of an artifact.

    `digest` covers its content. `made_from` is the digest of its input artifact; empty if the input was
    images. `details` holds the fields specific to the kind.
    """

    kind: Kind
    digest: str
    counts: dict[str, int]
    made_from: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def detail(self, name: str) -> Any:
        """Return a required entry of `details`. Raises InputError if it is missing."""
        if name not in self.details:
            problem = f"{self.kind} {self.digest}: details.{name} is missing in its {MANIFEST_FILE}"
            raise InputError(f"{problem}; make it again with {PRODUCERS[self.kind]}")
        return self.details[name]


def known_fields(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are fields of a dataclass. Later versions of stbir may have written others."""
    names = {each.name for each in fields(record)}
    return {name: value for name, value in values.items() if name in names}


def write_manifest(folder: Folder, manifest: Manifest, files: Mapping[str, int]) -> None:
    """Publish an artifact. Call it last: a folder without a manifest is not an artifact.

    `files` are the sizes in bytes of its files; empty for a gallery, whose table has a manifest of its own.
    Raises InputError if a file is missing or has another size.
    """
    sizes = folder.file_sizes(files)
    for name, size in files.items():
        if sizes[name] != size:
            problem = f"has {sizes[name]} bytes instead of {size}; nothing is published"
            raise InputError(f"{folder.uri}/{name}: {problem}, run the command again")
    folder.write(MANIFEST_FILE, json.dumps(asdict(manifest), indent=2, sort_keys=True).encode())


def read_manifest(folder: Folder, kind: Kind, remedy: str | None = None) -> Manifest:
    """Read the manifest of an artifact of the given kind.

    Raises InputError if it is missing, malformed, or of another kind or schema version. Its remedy is the
    command that makes the artifact, unless `remedy` is given.
    """
    remedy = remedy or f"make it with {PRODUCERS[kind]}"
    if not folder.exists(MANIFEST_FILE):
        raise InputError(f"{folder.uri}: no {kind} here ({MANIFEST_FILE} is missing); {remedy}")
    return read_manifest_file(folder, MANIFEST_FILE, kind, remedy)


def read_manifest_file(folder: Folder, name: str, kind: Kind, remedy: str) -> Manifest:
    """Read a manifest from a file of any name. Ignores fields that it does not know. Raises InputError as
    `read_manifest`."""
    try:
        content = json.loads(folder.read(name))
        manifest = Manifest(**known_fields(Manifest, content))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{folder.uri}/{name}: not a manifest ({error}); {remedy}") from error
    if manifest.kind != kind:
        raise InputError(f"{folder.uri}: holds a {manifest.kind}, not {kind}; {remedy}")
    if manifest.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"{folder.uri}: schema {manifest.schema_version}, this version of stbir reads {SCHEMA_VERSION};"
            f" {remedy}"
        )
    return manifest


def refuse_other_kind(folder: Folder, kind: Kind) -> None:
    """Raises InputError if the folder contains another kind of artifact, which must not be overwritten."""
    if folder.exists(MANIFEST_FILE):
        read_manifest(folder, kind, "choose another folder to write to, or remove that one")


def write_artifact(
    folder: Folder,
    kind: Kind,
    files: Mapping[str, bytes],
    counts: dict[str, int],
    made_from: str,
    details: dict[str, Any] | None = None,
) -> Manifest:
    """Write files (name → bytes), then the manifest with their digest."""
    for name, data in files.items():
        folder.write(name, data)
    manifest = Manifest(kind, content_digest(folder, files), counts, made_from, details or {})
    write_manifest(folder, manifest, {name: len(data) for name, data in files.items()})
    return manifest


def content_digest(folder: Folder, names: Iterable[str]) -> str:
    """Return `sha256:…` over the names and bytes of files, independent of the order of `names`."""
    return combine_digests({name: hashlib.sha256(folder.read(name)).hexdigest() for name in names})


def combine_digests(hashes: Mapping[str, str]) -> str:
    """Return the `content_digest` of files from their SHA-256 hashes (name → hexadecimal)."""
    total = hashlib.sha256()
    for name in sorted(hashes):
        total.update(f"{name}\0{hashes[name]}\n".encode())
    return f"sha256:{total.hexdigest()}"
