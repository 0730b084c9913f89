"""The life of a gallery: which versions were published, going back to one, folding in what was added, and
removing what nobody needs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import lance

from stbir.errors import InputError
from stbir.gallery.gallery import PUBLISHED, open_table, read_facts
from stbir.gallery.index import plan_index, vector_index
from stbir.gallery.publish import RELEASE, manifest_name, point
from stbir.gallery.table_writer import refuse_unfinished
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, read_manifest, write_manifest

_GROWN = 2  # an index of so many times fewer parts than its size asks for is built anew


@dataclass(frozen=True)
class Version:
    """A version that was published. `names`: its tags but the one that readers follow."""

    version: int
    names: list[str]
    published: bool
    created: str
    rows: int
    recall: float
    index: dict[str, Any]
    checkpoint: str


def versions(folder: Folder) -> list[Version]:
    """All that were published and are still there, newest first."""
    tags = _tags(folder)
    kept = sorted({version for name, version in tags.items() if name.startswith(RELEASE)}, reverse=True)
    return [_described(folder, version, tags) for version in kept]


def name(folder: Folder, name: str, version: str | None = None) -> int:
    """Give a version (None: the published one) a name to come back to. Raises InputError for a bad one."""
    if name == PUBLISHED or name.startswith(RELEASE) or name.isdigit() or not name.isidentifier():
        raise InputError(f"name: {name!r} cannot be one; take letters, digits and _, a letter first")
    dataset = open_table(folder, _resolved(folder, version or PUBLISHED))
    point(dataset, name)
    return int(dataset.version)


def in_force(folder: Folder) -> Manifest:
    """The manifest of the version that readers see, also where publishing was cut short after its tag moved.
    Raises InputError where nothing is published."""
    return _manifest(folder, _resolved(folder, PUBLISHED))


def rollback(folder: Folder, to: str) -> Manifest:
    """Let readers see again what a name or number stands for: its manifest and tag come back in force.

    Raises InputError where there is no such version, or it was never published.
    """
    version = _resolved(folder, to)
    manifest = _manifest(folder, version)
    point(open_table(folder, version), PUBLISHED)
    write_manifest(folder, manifest)
    return manifest


def fold(folder: Folder, rebuild: bool = False) -> lance.LanceDataset:
    """A new, unpublished version of what is published: small files made large, deleted rows gone, rows that
    the indexes do not know yet put into them. The vector index goes where `rebuild` says so or the gallery
    has outgrown it; `publish.prepare` builds another.

    Raises InputError while the table holds rows that no published version has: a job writes them. What an
    earlier fold left unpublished counts for nothing.
    """
    refuse_unfinished(folder)
    dataset = open_table(folder, PUBLISHED)
    if dataset.version != dataset.latest_version:
        dataset.restore()
    dataset.optimize.compact_files(materialize_deletions_threshold=0.0)
    index = vector_index(dataset)
    if index and (rebuild or _outgrown(dataset)):
        dataset.drop_index(index)
    if dataset.describe_indices():
        dataset.optimize.optimize_indices()
    return open_table(folder)


def clean(folder: Folder, keep: int, older_than: timedelta) -> dict[str, int]:
    """Remove what is older than that: versions never published, and all published ones but the newest
    `keep`, the one in force and those with a name of their own. Readers of a removed version fail."""
    tags = _tags(folder)
    published = sorted((v for tag, v in tags.items() if tag.startswith(RELEASE)), reverse=True)
    named = {version for tag, version in tags.items() if not tag.startswith(RELEASE)}
    dataset = open_table(folder)
    old = _older(dataset, older_than)
    gone = [version for version in published[keep:] if version not in named and version in old]
    for version in gone:
        dataset.tags.delete(f"{RELEASE}{version}")
    removed = dataset.cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)
    for version in gone:
        folder.remove(manifest_name(version))
    return {
        "releases_removed": len(gone),
        "versions_removed": int(removed.old_versions),
        "bytes_removed": int(removed.bytes_removed),
    }


def _older(dataset: lance.LanceDataset, age: timedelta) -> set[int]:
    listed: Sequence[dict[str, Any]] = dataset.versions()
    now = max(each["timestamp"] for each in listed)
    return {each["version"] for each in listed if now - each["timestamp"] >= age}


def _outgrown(dataset: lance.LanceDataset) -> bool:
    has = read_facts(dataset).plan
    wants = plan_index(dataset.count_rows(), above=0, kind=has.kind) if has else None
    return bool(has and wants and wants.partitions > _GROWN * has.partitions)


def _described(folder: Folder, version: int, tags: dict[str, int]) -> Version:
    manifest = _manifest(folder, version)
    return Version(
        version,
        sorted(tag for tag, of in tags.items() if of == version and tag != PUBLISHED),
        tags[PUBLISHED] == version,
        manifest.created,
        manifest.counts.get("ok", 0),
        manifest.detail("recall"),
        manifest.detail("index"),
        manifest.made_from,
    )


def _manifest(folder: Folder, version: int) -> Manifest:
    """The version's own. What was published before versions had theirs has it in force alone."""
    if folder.exists(manifest_name(version)):
        return Manifest(**json.loads(folder.read(manifest_name(version))))
    current = read_manifest(folder, "gallery")
    if current.details.get("version") != version:
        raise InputError(f"{folder.uri}: version {version} was never published; see `gallery.py versions`")
    return current


def _resolved(folder: Folder, named: str) -> int:
    if named.isdigit():
        return int(named)
    tags = _tags(folder)
    if named not in tags:
        raise InputError(f"version: there is no {named!r}; there is {', '.join(sorted(tags))}")
    return tags[named]


def _tags(folder: Folder) -> dict[str, int]:
    """Raises InputError where nothing is published."""
    read_manifest(folder, "gallery")
    return {tag: int(of["version"]) for tag, of in open_table(folder).tags.list().items()}


def as_rows(found: Sequence[Version]) -> list[dict[str, Any]]:
    """As JSON has them."""
    return [asdict(version) for version in found]
