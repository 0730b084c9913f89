"""The small files of a gallery in Milvus, as a file system of fsspec: manifests, writer lock, quarantine.

Content is in rows of the collection NAME__files, base64 in chunks. A row of its own, written last, makes a
file: so readers see the old content or the new.
"""

import base64
import io
import json
import time
import uuid
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast

from fsspec import AbstractFileSystem

from stbir.errors import InputError
from stbir.storage.milvus_server import MilvusServer, connect, quoted, split_uri

_CHUNK = 45_000  # bytes: 60,000 characters in base64; a VARCHAR has up to 65,535 bytes
_MAX_CHUNKS = 200  # that one request writes
_MAX_PATH = 1024  # bytes
_MAX_READS = 3  # of a large file that another process replaces meanwhile
_FIELDS: list[dict[str, Any]] = [
    {"field_name": "key", "datatype": "VARCHAR", "max_length": _MAX_PATH, "is_primary": True},
    {"field_name": "info", "datatype": "VARCHAR", "max_length": 65_535},  # JSON; empty for a chunk
    {"field_name": "content", "datatype": "VARCHAR", "max_length": 65_535},
    {"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": 2},  # Milvus requires one
]


class MilvusFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files below `NAME/` of a server. `address` is HOST:PORT.

    fsspec reads `token` and `secure` (TLS) from FSSPEC_MILVUS_TOKEN and FSSPEC_MILVUS_SECURE.
    """

    protocol = "milvus"

    def __init__(self, address: str, token: object = "", secure: object = False, **options: Any) -> None:
        super().__init__(address=address, **options)
        self._address, self._token, self._secure = address, str(token), str(secure).lower() in ("true", "1")
        self._loaded: set[str] = set()  # collections

    @cached_property
    def server(self) -> MilvusServer:
        """The connection. Raises InputError if no server answers."""
        return connect(self._address, self._token, self._secure)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return split_uri(path)[1] if "://" in path else path.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        return {"address": split_uri(path)[0]}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is a file or folder. fsspec's own method answers "no" for any error."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Type and size of a file or folder. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        files = self._files(path)
        if path in files:
            return files[path]
        if any(name.startswith(f"{path}/") for name in files):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries directly inside a folder. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        files = self._files(path)
        entries = {path: files[path]} if path in files else {}
        for name, info in files.items():
            if name.startswith(f"{path}/"):
                entry, is_folder, _rest = name[len(path) + 1 :].partition("/")
                child = f"{path}/{entry}"
                entries[child] = {"name": child, "type": "directory", "size": 0} if is_folder else info
        if not entries:
            raise FileNotFoundError(path)
        return list(entries.values()) if detail else list(entries)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        for _attempt in range(_MAX_READS):
            row = self._row(path)
            if row is None:
                break
            info = json.loads(row["info"])
            content = self._read_chunks(path, info) if info["chunks"] else row["content"]
            if content is not None:  # else another process has replaced the file meanwhile
                return base64.b64decode(content)[start:end]
        if self.server.has_collection(_reservation(path)):
            return b""
        raise FileNotFoundError(path)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write a file; with the mode "create", of several concurrent calls one succeeds. Raises
        FileExistsError."""
        path = self._strip_protocol(path)
        if len(path.encode()) > _MAX_PATH:
            raise InputError(f"{self.protocol}://{self._address}/{path}: the name is too long; shorten it")
        self._open_collection(path)
        if mode == "create":
            self._reserve(path)
        old, content_id = self._row(path), uuid.uuid4().hex
        is_small = len(value) <= _CHUNK
        chunks = [] if is_small else [value[start : start + _CHUNK] for start in range(0, len(value), _CHUNK)]
        rows = [_row(f"{content_id}/{n}", "", chunk) for n, chunk in enumerate(chunks)]
        for first in range(0, len(rows), _MAX_CHUNKS):
            self.server.call("upsert", _collection(path), rows[first : first + _MAX_CHUNKS])
        info = {"size": len(value), "modified": time.time(), "id": content_id, "chunks": len(chunks)}
        row = _row(path, json.dumps(info), value if is_small else b"")
        self.server.call("upsert", _collection(path), [row])
        if old is not None:
            self._delete_chunks(path, json.loads(old["info"]))

    def rm_file(self, path: str) -> None:
        """Remove a file; nothing for a folder, which has no row."""
        path = self._strip_protocol(path)
        row = self._row(path)
        if row is not None:
            self.server.call("delete", _collection(path), filter=f"key == {quoted(path)}")
            self._delete_chunks(path, json.loads(row["info"]))
        if self.server.has_collection(_reservation(path)):
            self.server.call("drop_collection", _reservation(path))

    def modified(self, path: str) -> datetime:
        """When a file was written, by the clock of the writer."""
        return datetime.fromtimestamp(self.info(path)["modified"], UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        return _Upload(self, path) if "w" in mode else io.BytesIO(self.cat_file(path))

    def _files(self, path: str) -> dict[str, dict[str, Any]]:
        """All files of the gallery of a path, those that are only reserved as empty ones."""
        collections, prefix = self.server.call("list_collections"), _reservation_prefix(path)
        rows = self._query(path, 'info != ""', "key", "info") if _collection(path) in collections else []
        files = {row["key"]: {"name": row["key"], "type": "file", **json.loads(row["info"])} for row in rows}
        for collection in collections:
            if collection.startswith(prefix):
                name = f"{path.partition('/')[0]}/{bytes.fromhex(collection.removeprefix(prefix)).decode()}"
                files.setdefault(name, {"name": name, "type": "file", "size": 0, "modified": 0.0})
        return files

    def _row(self, path: str) -> dict[str, str] | None:
        """The row that makes a file; None if there is none."""
        if not self.server.has_collection(_collection(path)):
            return None
        rows = self._query(path, f'key == {quoted(path)} and info != ""', "info", "content")
        return rows[0] if rows else None

    def _read_chunks(self, path: str, info: dict[str, Any]) -> str | None:
        """The content in base64; None if chunks are missing."""
        rows: dict[str, str] = {}
        for keys in _chunk_keys(info):
            found = self._query(path, f"key in [{', '.join(map(quoted, keys))}]", "key", "content")
            rows |= {row["key"]: row["content"] for row in found}
        # The length of a chunk is a multiple of 3, so that its base64 has no padding.
        is_complete = len(rows) == info["chunks"]
        return "".join(rows[key] for keys in _chunk_keys(info) for key in keys) if is_complete else None

    def _delete_chunks(self, path: str, info: dict[str, Any]) -> None:
        for keys in _chunk_keys(info):
            self.server.call("delete", _collection(path), filter=f"key in [{', '.join(map(quoted, keys))}]")

    def _query(self, path: str, filter: str, *fields: str) -> list[dict[str, str]]:
        if _collection(path) not in self._loaded:
            self.server.call("load_collection", _collection(path))
            self._loaded.add(_collection(path))
        options = {"filter": filter, "output_fields": list(fields), "consistency_level": "Strong"}
        return cast(list[dict[str, str]], self.server.call("query", _collection(path), **options))

    def _open_collection(self, path: str) -> None:
        """Create the collection if it is missing; several processes may."""
        name = _collection(path)
        if name in self._loaded:
            return
        try:
            self.server.create_collection(name, _FIELDS)
        except InputError:
            if not self.server.is_created_by_another(name):
                raise
        if self.server.call("list_indexes", name):
            return
        try:  # also if the process that created the collection was killed
            self.server.create_index(name, "vector", "FLAT", "IP")
        except InputError:
            if not self.server.call("list_indexes", name):
                raise

    def _reserve(self, path: str) -> None:
        """Raises FileExistsError if the file exists. A new collection excludes other writers: of two that
        create the same name, the server refuses one, as they differ in a field."""
        if path in self._files(path):
            raise FileExistsError(path)
        key = {"field_name": f"by_{uuid.uuid4().hex}", "datatype": "INT64", "is_primary": True}
        try:
            self.server.create_collection(_reservation(path), [key, _FIELDS[-1]])
        except InputError as error:
            if self.server.is_created_by_another(_reservation(path)):
                raise FileExistsError(path) from error
            raise


class _Upload(io.BytesIO):
    """A new file, written when it is closed."""

    def __init__(self, files: MilvusFileSystem, path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        if not self.closed:
            self._files.pipe_file(self._path, self.getvalue())
        super().close()


def _row(key: str, info: str, content: bytes) -> dict[str, Any]:
    return {"key": key, "info": info, "content": base64.b64encode(content).decode(), "vector": [1.0, 0.0]}


def _chunk_keys(info: dict[str, Any]) -> list[list[str]]:
    """The keys of a file's chunks, in parts for one request each."""
    keys = [f"{info['id']}/{n}" for n in range(info["chunks"])]
    return [keys[first : first + _MAX_CHUNKS] for first in range(0, len(keys), _MAX_CHUNKS)]


def _collection(path: str) -> str:
    return f"{path.partition('/')[0]}__files"


def _reservation_prefix(path: str) -> str:
    return f"{path.partition('/')[0]}__new_"


def _reservation(path: str) -> str:
    """The collection that reserves a file. It has the name of the file: milvus-lite stores no description."""
    return _reservation_prefix(path) + path.partition("/")[2].encode().hex()
