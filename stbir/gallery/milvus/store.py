"""The store of a gallery on a Milvus server: a collection for each version, an alias for each tag."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa

from stbir.errors import InputError
from stbir.gallery.index import BuiltIndex, IndexBuilder, IndexPlan, check_index_columns
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.metadata import Metadata, is_compatible, read_metadata, write_metadata
from stbir.gallery.milvus.search import MilvusRows, MilvusSearcher
from stbir.gallery.milvus.table import MilvusTable, State, collection_name, state_name
from stbir.gallery.milvus.writer import (
    MilvusWriter,
    copy_version,
    create_version,
    delete_uncommitted,
    write_version,
)
from stbir.gallery.rows import TableVectors
from stbir.gallery.search import OpenVersion
from stbir.gallery.table import PUBLISHED, VECTOR
from stbir.storage.folder import Folder
from stbir.storage.manifest import PRODUCERS, known_fields
from stbir.storage.milvus_server import FORM, MilvusServer

_INDEXED = ("photo_id", "category")
_ESCAPED = re.compile(r"_([0-9a-f]+)_")


class MilvusStore:
    """As in `stbir.gallery.store.VectorStore`. `folder` is milvus://HOST:PORT/NAME."""

    allows_concurrent_writers = (
        False  # a row's key is its position, and an update copies the published version
    )

    def __init__(self, folder: Folder) -> None:
        """Raises InputError for a folder below that."""
        if "/" in folder.path:
            raise InputError(f"{folder.uri}: not the URI of a Milvus gallery; use {FORM}")
        self._folder = folder

    def open(self, version: str | int | None = None) -> MilvusTable:
        """As in VectorStore."""
        versions = self._versions()
        number = self.tags().get(version) if isinstance(version, str) else version
        number = max(versions, default=None) if version is None else number
        if number not in versions:
            problem = f"version {version!r} cannot be opened (available: {versions})"
            raise InputError(f"{self._folder.uri}: {problem}; make it with {PRODUCERS['gallery']}")
        state = json.loads(self._folder.read(state_name(number)))
        return MilvusTable(self._folder, number, State(**known_fields(State, state)))

    def latest(self) -> MilvusTable | None:
        """As in VectorStore."""
        return self.open() if self._versions() else None

    def tags(self) -> dict[str, int]:
        """As in VectorStore."""
        tags = {}
        for alias in self._server.call("list_aliases", "")["aliases"]:
            tag = self._tag(alias)
            if tag is not None:
                collection = self._server.call("describe_alias", alias)["collection_name"]
                tags[tag] = int(collection.removeprefix(collection_name(self._folder, 0)[:-1]))
        return tags

    def set_tag(self, tag: str, version: int) -> None:
        """As in VectorStore."""
        operation = "alter_alias" if tag in self.tags() else "create_alias"
        self._server.call(operation, collection_name(self._folder, version), self._alias(tag))

    def open_writer(self, schema: pa.Schema, checkpoint_digest: str) -> MilvusWriter:
        """As in VectorStore."""
        latest = self.latest()
        if latest is None or not is_compatible(latest, schema, checkpoint_digest):
            table = create_version(self._folder, self._next(), schema)
            write_metadata(table, Metadata(checkpoint_digest))
            return MilvusWriter(self._folder, table, None)
        if latest.version in self.tags().values():
            return MilvusWriter(self._folder, latest, self._next())
        delete_uncommitted(latest)
        return MilvusWriter(self._folder, latest, None)

    def reopen_published(self) -> MilvusWriter:
        """As in VectorStore."""
        published = self.open(PUBLISHED)
        self.delete_untagged(max(self.tags().values()), self._next())
        return MilvusWriter(self._folder, published, self._next())

    def has_unpublished_rows(self) -> bool:
        """As in VectorStore."""
        latest = self.open()
        return latest.version not in self.tags().values() and latest.state.appended

    def write(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """As in VectorStore."""
        version = self._next()
        write_version(self._folder, version, schema, batches)
        return version

    def build_indexes(
        self, table: MilvusTable, plan: IndexPlan | None, columns: tuple[str, ...], builder: IndexBuilder
    ) -> BuiltIndex:
        """As in VectorStore, on the server: IVF_FLAT with the sizes of the plan, or none. A version gets
        its index once: a later one is another collection."""
        check_index_columns(table.schema, columns)
        self._server.call("flush", table.collection)
        wanted = replace(plan, kind="IVF_FLAT") if plan else None
        existing = self._server.call("list_indexes", table.collection)
        for column in dict.fromkeys((*_INDEXED, *columns)):
            if (name := table.columns[column].name) not in existing:
                self._server.create_index(table.collection, name, "INVERTED")
        built = read_metadata(table).plan if self._has_metadata(table) else None
        if wanted is not None and built is None:
            built = self.rebuild_index(table, wanted, builder)
        self._server.call("load_collection", table.collection)
        table.save_categories()
        return BuiltIndex(built)

    def rebuild_index(self, table: MilvusTable, plan: IndexPlan, builder: IndexBuilder) -> IndexPlan:
        """As in VectorStore. The server builds it; `builder` is for Lance tables."""
        self._server.call("release_collection", table.collection)
        self._server.call("drop_index", table.collection, VECTOR)
        self._server.create_index(table.collection, VECTOR, "IVF_FLAT", "IP", nlist=plan.partitions)
        self._server.call("load_collection", table.collection)
        return plan

    def open_search(
        self, table: MilvusTable, plan: IndexPlan | None, cache: CacheConfig | None
    ) -> OpenVersion:
        """As in VectorStore. `cache` is for Lance tables."""
        self._server.call("load_collection", table.collection)
        rows = MilvusRows(table)
        return OpenVersion(rows, TableVectors(table), MilvusSearcher(table, rows, plan), 0, table)

    def compact(self, rebuild: bool) -> MilvusTable:
        """As in VectorStore: a copy, whose index is new."""
        published = self.open(PUBLISHED)
        self.delete_untagged(max(self.tags().values()), self._next())
        return copy_version(self._folder, published, self._next())

    def delete_untagged(self, after: int, before: int) -> None:
        """As in VectorStore."""
        tagged = set(self.tags().values())
        self._delete([each for each in self._versions() if after < each < before and each not in tagged])

    def expired(self, age: timedelta) -> set[int]:
        """As in VectorStore."""
        created = {each: datetime.fromisoformat(self.open(each).state.created) for each in self._versions()}
        now = max(created.values())
        return {version for version, time in created.items() if now - time >= age}

    def delete_releases(self, releases: Sequence[int], older_than: timedelta) -> dict[str, int]:
        """As in VectorStore."""
        tags = self.tags()
        for tag, version in tags.items():
            if version in releases:
                self._server.call("drop_alias", self._alias(tag))
        untagged = self.expired(older_than) - set(tags.values()) - {self.open().version}
        self._delete([*releases, *untagged])
        return {"versions_removed": len(releases) + len(untagged)}

    @property
    def _server(self) -> MilvusServer:
        server: MilvusServer = self._folder.fs.server
        return server

    def _versions(self) -> list[int]:
        """The numbers of all versions, ascending."""
        names = self._folder.list_files("tables/*.json")
        return sorted(int(name.removeprefix("tables/").removesuffix(".json")) for name in names)

    def _next(self) -> int:
        return max(self._versions(), default=0) + 1

    def _delete(self, versions: Iterable[int]) -> None:
        for version in versions:
            self._server.call("drop_collection", collection_name(self._folder, version))
            self._folder.remove(state_name(version))

    def _alias(self, tag: str) -> str:
        """NAME for the published version, so that other clients of Milvus find it, else NAME__t_TAG."""
        if tag == PUBLISHED:
            return self._folder.path
        escaped = "".join(each if each.isascii() and each.isalnum() else f"_{ord(each):x}_" for each in tag)
        return f"{self._folder.path}__t_{escaped}"

    def _tag(self, alias: str) -> str | None:
        """The tag of an alias; None for that of another gallery."""
        if alias == self._folder.path:
            return PUBLISHED
        prefix = f"{self._folder.path}__t_"
        if not alias.startswith(prefix):
            return None
        return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), alias.removeprefix(prefix))

    def _has_metadata(self, table: MilvusTable) -> bool:
        try:
            return bool(read_metadata(table))
        except InputError:
            return False
