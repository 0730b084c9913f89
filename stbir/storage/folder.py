"""Folders at any fsspec URI (`file`, `s3`, `memory`, …)."""

import contextlib
import glob
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from stbir.errors import InputError
from stbir.storage.errors import STORAGE_ERRORS, storage_error
from stbir.storage.uri import normalize_scheme, quoted_uri, resolve_uri


class Folder:
    """A folder at a URI. File names are relative to it, with `/` between levels.

    Methods raise InputError, naming the URI, if the storage cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        """Raises InputError for an unknown URI scheme, and for a scheme alone, such as `s3://`."""
        self.uri = normalize_scheme(uri).rstrip("/") or uri[:1]  # "/" is the root, "" the working directory
        self.fs, path = resolve_uri(uri)
        self.path = path.rstrip("/")
        if not (self.path or self.is_local):
            raise InputError(f"{uri}: names no bucket or folder; add one")
        if self.is_local:
            self.uri = self.path  # absolute, since Ray workers have another working directory

    def child(self, name: str) -> "Folder":
        """Return the folder `name` inside this one."""
        return Folder(f"{self.uri}/{name}")

    def path_of(self, name: str) -> str:
        """Return the path of a file without the URI scheme, as the file system object takes it."""
        return f"{self.path}/{name}"

    def quoted_uri_of(self, name: str) -> str:
        """Return the URI of a file for libraries that parse URLs (Lance, pyarrow, Ray), on any machine.

        Raises InputError for a name that no URL can express.
        """
        return quoted_uri(f"{self.uri}/{name}")

    @property
    def is_local(self) -> bool:
        """Whether the folder is on the local file system."""
        protocol = self.fs.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name exists. Ignores fsspec's listing cache."""
        with self._translate_errors():
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self.path_of(name) if name else self.path))

    def list_files(self, pattern: str = "*") -> list[str]:
        """Return the sorted names of the files that match a glob pattern (`**` is recursive)."""
        with self._translate_errors():
            self.fs.invalidate_cache()
            entries = self.fs.glob(f"{glob.escape(self.path)}/{pattern}", detail=True)
        # fsspec gives links to local files another type.
        links = {path for path, info in entries.items() if info.get("islink") and self.fs.isfile(path)}
        files = [path for path, info in entries.items() if info["type"] == "file" or path in links]
        return sorted(path[len(self.path) + 1 :] for path in files)

    def file_sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the sizes in bytes of files. Lists each of their folders once.

        Raises InputError if a file is missing.
        """
        paths, sizes = {self.path_of(name): name for name in names}, dict[str, int]()
        with self._translate_errors():
            self.fs.invalidate_cache()
            for parent in {path.rpartition("/")[0] for path in paths}:
                entries = self.fs.ls(parent, detail=True) if self.fs.exists(parent) else []
                found = {each["name"]: each["size"] for each in entries if each["type"] == "file"}
                sizes |= {paths[path]: found[path] for path in found.keys() & paths.keys()}
        for name in paths.values():
            if name not in sizes:
                raise InputError(f"{self.uri}/{name}: missing, though it was written; run the command again")
        return sizes

    def read(self, name: str) -> bytes:
        """Read a file."""
        with self._translate_errors():
            return bytes(self.fs.cat_file(self.path_of(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically: readers see the old content or the new, never a part."""
        with self._translate_errors():
            if self.is_local:
                _write_then_rename(self.path_of(name), data)
            else:
                self.fs.pipe_file(self.path_of(name), data)

    def create(self, name: str, data: bytes) -> None:
        """Write a new file. Of several concurrent calls, one succeeds.

        Raises FileExistsError if the file exists, and other storage errors unchanged. On a local disk,
        readers may see the file empty for a moment.
        """
        if self.is_local:
            os.makedirs(os.path.dirname(self.path_of(name)), exist_ok=True)
            # fsspec's local "create" mode checks and then writes, so two calls could succeed.
            with open(self.path_of(name), "xb") as file:
                file.write(data)
        else:
            self.fs.pipe_file(self.path_of(name), data, mode="create")

    def modified_time(self, name: str) -> float:
        """Return when a file was last modified, by the storage's clock, in seconds since 1970."""
        with self._translate_errors():
            return float(self.fs.modified(self.path_of(name)).timestamp())

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for seekable reads, e.g. of safetensors and Parquet footers."""
        with self._translate_errors(), self.fs.open(self.path_of(name), "rb") as file:
            yield file

    @contextmanager
    def open_for_writing(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for streaming writes. Not atomic: the manifest, written last, publishes the file."""
        with self._translate_errors():
            self.fs.makedirs(self.path, exist_ok=True)
            with self.fs.open(self.path_of(name), "wb") as file:
                yield file

    def remove(self, name: str = "") -> None:
        """Remove a file, or the folder with its content. Does nothing if it does not exist."""
        with self._translate_errors():
            self.fs.invalidate_cache()
            path = self.path_of(name) if name else self.path
            if self.fs.exists(path):
                # Except on a disk, fsspec takes the path for a pattern: `a*` would remove `ab`, too.
                self.fs.rm(path if self.is_local else glob.escape(path), recursive=True)

    def list_entries(self) -> list[str]:
        """Return the sorted names of the files and folders directly inside; empty if there is no folder."""
        with self._translate_errors():
            self.fs.invalidate_cache()
            entries = self.fs.ls(self.path, detail=False) if self.fs.exists(self.path) else []
        return sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries)

    def remove_if_empty(self) -> None:
        """Remove the folder from a disk if nothing is in it. Object stores have no empty folders."""
        if self.is_local:
            with contextlib.suppress(OSError):  # not empty: another job has written to it meanwhile
                os.rmdir(self.path)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except STORAGE_ERRORS as error:
            raise storage_error(self.uri, error) from error


def _write_then_rename(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{uuid.uuid4().hex}.part"
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_uri(uri: str) -> bytes:
    """Read the file at a URI. Raises InputError if it cannot be read."""
    fs, path = resolve_uri(uri)
    try:
        return bytes(fs.cat_file(path))
    except STORAGE_ERRORS as error:
        raise storage_error(uri, error) from error
