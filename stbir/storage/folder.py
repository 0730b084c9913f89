"""Folders at any fsspec URI (`file`, `s3`, `memory`, …): bytes in, bytes out."""

import glob
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import fsspec
from botocore.exceptions import BotoCoreError, ClientError

from stbir.errors import InputError

UNREACHABLE = (OSError, BotoCoreError, ClientError)


class Folder:
    """A folder at a URI. Names are relative to it, with `/` between levels.

    Raises InputError, naming the URI, when the place cannot be reached or its scheme is unknown.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") or uri[:1]  # "/" is the root, "" is here
        try:
            self.fs, path = fsspec.core.url_to_fs(self.uri)
        except (ValueError, ImportError) as error:
            raise InputError(f"{uri}: {error}; use a local path or a URI that fsspec can open") from error
        self.path = path.rstrip("/")
        if self.local:
            self.uri = self.path  # absolute: workers stand in another directory

    def child(self, name: str) -> "Folder":
        """The folder `name` inside this one."""
        return Folder(f"{self.uri}/{name}")

    def at(self, name: str) -> str:
        """The path of `name` as the file system knows it (without scheme)."""
        return f"{self.path}/{name}"

    @property
    def local(self) -> bool:
        """Whether the folder lies on this machine's own file system."""
        protocol = self.fs.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there now (listing caches are not trusted)."""
        with self._reaching():
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self.at(name) if name else self.path))

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names of the files in this folder that match a glob pattern (`**` descends)."""
        with self._reaching():
            self.fs.invalidate_cache()
            found = self.fs.glob(f"{glob.escape(self.path)}/{pattern}", detail=True)
        return sorted(path[len(self.path) + 1 :] for path, info in found.items() if info["type"] == "file")

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self._reaching():
            return bytes(self.fs.cat_file(self.at(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all: readers see the old bytes or the new, never a part."""
        with self._reaching():
            if self.local:
                _write_then_rename(self.at(name), data)
            else:
                self.fs.pipe_file(self.at(name), data)

    def create(self, name: str, data: bytes) -> None:
        """Write a file that is not there yet; of several at once one succeeds.

        Raises FileExistsError where it is there, and the file system's other errors as they are. On a disk a
        reader may find it empty for a moment.
        """
        if self.local:
            os.makedirs(os.path.dirname(self.at(name)), exist_ok=True)
            with open(self.at(name), "xb") as file:  # fsspec looks first and then writes: two would succeed
                file.write(data)
        else:
            self.fs.pipe_file(self.at(name), data, mode="create")

    def modified(self, name: str) -> float:
        """When a file was written by the clock of the place, in seconds since 1970."""
        with self._reaching():
            return float(self.fs.modified(self.at(name)).timestamp())

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A seekable file for reading parts of it, as safetensors and Parquet footers want."""
        with self._reaching(), self.fs.open(self.at(name), "rb") as file:
            yield file

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write piece by piece. What reads it must ask for a manifest that is written later."""
        with self._reaching():
            self.fs.makedirs(self.path, exist_ok=True)
            with self.fs.open(self.at(name), "wb") as file:
                yield file

    def remove(self, name: str = "") -> None:
        """Remove a file or a whole folder; what is already gone is fine."""
        with self._reaching():
            self.fs.invalidate_cache()
            path = self.at(name) if name else self.path
            if self.fs.exists(path):
                self.fs.rm(path, recursive=True)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except UNREACHABLE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{self.uri}: cannot be read or written ({reason}); check that the path or bucket exists"
                " and that AWS_* variables are set where it is an s3:// URI"
            ) from error


def _write_then_rename(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{uuid.uuid4().hex}.part"
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_uri(uri: str) -> bytes:
    """The bytes of one file at a URI."""
    folder, _, name = uri.rpartition("/")
    return Folder(folder or ("/" if uri.startswith("/") else ".")).read(name)
