"""The published versions of a gallery: list, tag, roll back, optimize and prune them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from stbir.errors import InputError
from stbir.gallery.publish import RELEASE_PREFIX, version_manifest_name
from stbir.gallery.store import open_store
from stbir.gallery.table import PUBLISHED, names_table
from stbir.gallery.table_writer import check_all_rows_published
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, read_manifest, read_manifest_file, write_manifest


@dataclass(frozen=True)
class Version:
    """A published version. `names`: its tags except `published`."""

    version: int
    names: list[str]
    published: bool
    created: str
    rows: int
    recall: float
    index: dict[str, Any]
    checkpoint: str


def list_versions(folder: Folder) -> list[Version]:
    """All published versions that still exist, newest first."""
    tags = _tags(folder)
    return [_describe(folder, version, tags) for version in _releases(tags)]


def tag_version(folder: Folder, tag: str, version: str | None = None) -> int:
    """Tag a version (None: the published one); returns its number. Raises InputError for an invalid tag."""
    if tag == PUBLISHED or tag.startswith(RELEASE_PREFIX):
        raise InputError(f"tag: {tag!r} is reserved; choose another")
    if not tag.isidentifier():
        raise InputError(f"tag: {tag!r} is invalid; use letters, digits and _, starting with a letter")
    number, store = _resolve(folder, version or PUBLISHED), open_store(folder)
    store.open(number)
    store.set_tag(tag, number)
    return number


def published_manifest(folder: Folder) -> Manifest:
    """The manifest of the published version, even if publishing stopped after it moved the tag. Raises
    InputError if nothing is published."""
    return _manifest(folder, _resolve(folder, PUBLISHED))


def rollback(folder: Folder, to: str) -> Manifest:
    """Publish an earlier version, given by tag or number, with its manifest. Raises InputError for an unknown
    version, and for one that was never published."""
    version = _resolve(folder, to)
    manifest = _manifest(folder, version)
    open_store(folder).set_tag(PUBLISHED, version)
    write_manifest(folder, manifest, files={})
    return manifest


@names_table
def optimize(folder: Folder, rebuild: bool = False) -> Any:
    """A new, unpublished version of the published one: compacted, with all rows in its indexes.

    `rebuild` drops the vector index, and so does a gallery that has outgrown it; `publish.prepare` builds
    another. Discards the result of an earlier `optimize` that was not published. Raises InputError as
    `check_all_rows_published`.
    """
    check_all_rows_published(folder)
    return open_store(folder).compact(rebuild)


@names_table
def prune(folder: Folder, keep: int, older_than: timedelta) -> dict[str, int]:
    """Delete versions older than `older_than`. Keeps the newest `keep` published versions, the current one,
    and those with a tag. Readers of a deleted version fail."""
    tags, store = _tags(folder), open_store(folder)
    tagged = {version for tag, version in tags.items() if not tag.startswith(RELEASE_PREFIX)}
    expired = store.expired(older_than)
    releases = [version for version in _releases(tags)[keep:] if version not in tagged and version in expired]
    removed = store.delete_releases(releases, older_than)
    for version in releases:
        folder.remove(version_manifest_name(version))
    return {"releases_removed": len(releases), **removed}


def _describe(folder: Folder, version: int, tags: dict[str, int]) -> Version:
    manifest = _manifest(folder, version)
    return Version(
        version,
        sorted(tag for tag, number in tags.items() if number == version and tag != PUBLISHED),
        tags[PUBLISHED] == version,
        manifest.created,
        manifest.counts.get("ok", 0),
        manifest.detail("recall"),
        manifest.detail("index"),
        manifest.made_from,
    )


def _manifest(folder: Folder, version: int) -> Manifest:
    """A version's manifest copy. The oldest galleries have none, only the manifest of the current version."""
    if folder.exists(version_manifest_name(version)):
        remedy = f"remove that file if version {version} is the current one, or roll back to another version"
        return read_manifest_file(folder, version_manifest_name(version), "gallery", remedy)
    current = read_manifest(folder, "gallery")
    if current.details.get("version") != version:
        raise InputError(f"{folder.uri}: version {version} was never published; see `gallery.py versions`")
    return current


def _resolve(folder: Folder, name: str) -> int:
    """The number of a version that is given by number or tag."""
    if name.isdigit():
        return int(name)
    tags = _tags(folder)
    if name not in tags:
        raise InputError(f"version: no tag {name!r}; available: {', '.join(sorted(tags))}")
    return tags[name]


def _releases(tags: dict[str, int]) -> list[int]:
    """The versions that were published, newest first."""
    return sorted({version for tag, version in tags.items() if tag.startswith(RELEASE_PREFIX)}, reverse=True)


def _tags(folder: Folder) -> dict[str, int]:
    """All tags and their versions. Raises InputError if nothing is published."""
    read_manifest(folder, "gallery")
    return open_store(folder).tags()
