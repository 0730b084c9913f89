"""Lists all files below a folder or bucket, nested to any depth."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from stbir.errors import InputError
from stbir.storage.errors import STORAGE_ERRORS
from stbir.storage.file_version import info_version, stat_version
from stbir.storage.folder import Folder
from stbir.storage.retry import with_retries

LISTED_LINK = "link to a listed folder"
NOT_A_FILE = "not a file"
NOT_SEARCHED = "folder not searched"


@dataclass(frozen=True)
class ListedFile:
    """A file below a folder. `name` is relative to it, `uri` a local path or a URI, `size` in bytes.

    `version` is that of `file_version`, None if unknown. A file with a `problem` (one of the constants above)
    cannot be read.
    """

    name: str
    uri: str
    size: int
    problem: str | None = None
    version: str | None = None


def list_files(root: Folder, is_listed: Callable[[str], bool] = lambda _: True) -> Iterator[ListedFile]:
    """The files of a folder by name, then those of its subfolders. Holds one folder per level in memory.

    Follows a link to a folder unless that folder is listed by itself. A subfolder for whose name `is_listed`
    is false counts as one file with a problem. Raises InputError for a folder that cannot be listed.
    """
    if root.is_local:
        yield from _LocalListing(root, is_listed).list_folder("", is_linked=False)
    else:
        yield from _list_remote(root, root.path, is_listed)


class _LocalListing:
    def __init__(self, root: Folder, is_listed: Callable[[str], bool]) -> None:
        self._root, self._real_root, self._is_named = root, os.path.realpath(root.path), is_listed
        self._listed_targets: set[str] = set()  # real paths of the folders below links

    def list_folder(self, prefix: str, is_linked: bool) -> Iterator[ListedFile]:
        """The files whose name begins with `prefix`, which is empty or ends with a slash."""
        try:
            with os.scandir(f"{self._root.path}/{prefix}") as entries:
                files = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise _cannot_list(self._root, f"{self._root.path}/{prefix}", error) from error
        folders = [entry for entry in files if _is_folder(entry)]
        yield from (_local_file(prefix, entry) for entry in files if not _is_folder(entry))
        for entry in folders:
            name, is_link = prefix + entry.name, is_linked or entry.is_symlink()
            if not self._is_named(name):
                yield ListedFile(name, entry.path, 0, NOT_SEARCHED)
            elif is_link and self._is_listed(entry.path):
                yield ListedFile(name, entry.path, 0, LISTED_LINK)
            else:
                yield from self.list_folder(f"{name}/", is_link)

    def _is_listed(self, path: str) -> bool:
        """Whether a folder below a link is in the root, or was listed for another link."""
        target = os.path.realpath(path)
        if target in self._listed_targets or f"{target}/".startswith(f"{self._real_root}/"):
            return True
        self._listed_targets.add(target)
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # e.g. a link to itself
        return False


def _local_file(prefix: str, entry: os.DirEntry[str]) -> ListedFile:
    name = prefix + entry.name
    try:
        status = entry.stat()
    except OSError:  # a broken link, or a file that was removed meanwhile
        return ListedFile(name, entry.path, 0, NOT_A_FILE)
    if not stat.S_ISREG(status.st_mode):
        return ListedFile(name, entry.path, 0, NOT_A_FILE)
    return ListedFile(name, entry.path, status.st_size, version=stat_version(status))


def _list_remote(root: Folder, path: str, is_listed: Callable[[str], bool]) -> Iterator[ListedFile]:
    infos = _list(root, path, lambda: root.fs.ls(path, detail=True))
    infos = [info for info in infos if info["name"] != path]
    folders = [info["name"] for info in infos if info["type"] == "directory"]
    yield from (_remote_file(root, info) for info in infos if info["type"] != "directory")
    for folder in folders:
        name = folder[len(root.path) + 1 :]
        if not is_listed(name.rstrip("/")):
            yield ListedFile(name, str(root.fs.unstrip_protocol(folder)), 0, NOT_SEARCHED)
        elif folder == f"{path}/":  # keys with two slashes in a row; `ls` cannot list below the first one
            below = _list(root, path, lambda: root.fs.find(path, prefix="/", detail=True).values())
            yield from (_remote_file(root, info) for info in below)
        else:
            yield from _list_remote(root, folder, is_listed)


def _remote_file(root: Folder, info: dict[str, Any]) -> ListedFile:
    path = info["name"]
    uri, version = str(root.fs.unstrip_protocol(path)), info_version(info)
    return ListedFile(path[len(root.path) + 1 :], uri, info["size"], version=version)


def _list(
    root: Folder, path: str, list_infos: Callable[[], Iterable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Sorted by name, without the empty objects that stand for folders in some object stores."""
    root.fs.invalidate_cache()
    try:
        infos = with_retries(list_infos)
    except STORAGE_ERRORS as error:
        raise _cannot_list(root, path, error) from error
    files = [info for info in infos if info["type"] == "directory" or not info["name"].endswith("/")]
    return sorted(files, key=lambda info: str(info["name"]))


def _cannot_list(root: Folder, path: str, error: Exception) -> InputError:
    return InputError(f"{root.uri}: {path} cannot be listed ({error}); check the path, AWS_*")
