"""GALLERY: a Lance table of photo embeddings. A tag marks the published version.

Each version stores its own metadata (checkpoint, index), so a rollback of the tag restores them, too.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import lance
import numpy as np
import pyarrow as pa

from stbir.config.choices import IndexKind
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.exact_search import ExactSearch
from stbir.gallery.filters import Condition, Filter, filterable_columns, render_filter, suggest
from stbir.gallery.index import IndexPlan, count_unindexed_rows
from stbir.gallery.lance_index import LanceIndex, Tables
from stbir.gallery.local_cache import CacheConfig, VersionCache
from stbir.gallery.origin import read_origin
from stbir.gallery.rows import VECTOR, Rows, TableVectors, VectorStore, load_vectors
from stbir.gallery.search import Hit, IndexSearch, Searcher, to_hits
from stbir.gallery.statistics import VectorStatistics
from stbir.storage.errors import storage_errors
from stbir.storage.folder import Folder
from stbir.storage.manifest import PRODUCERS, known_fields, read_manifest

TABLE = "photos.lance"
PUBLISHED = "published"
P = ParamSpec("P")
T = TypeVar("T")
_METADATA_KEY = "stbir.gallery"


@dataclass(frozen=True)
class Metadata:
    """What a version stores in its schema. `nprobes`: 0 means no index."""

    checkpoint: str
    nprobes: int = 0
    partitions: int = 0
    kind: IndexKind = "IVF_HNSW_SQ"  # the kind of tables that are older than this field

    @classmethod
    def of(cls, checkpoint: str, plan: IndexPlan | None) -> "Metadata":
        """The metadata of a version with that index; None means exact search."""
        return cls(checkpoint) if plan is None else cls(checkpoint, plan.nprobes, plan.partitions, plan.kind)

    @property
    def plan(self) -> IndexPlan | None:
        """The index of the version; None means exact search."""
        return IndexPlan(self.partitions, self.nprobes, self.kind) if self.nprobes else None


def schema(dim: int, fields: pa.Schema | None = None) -> pa.Schema:
    """The columns of the table. `content` is the SHA-256 of the photo's bytes, hexadecimal. `fields` are the
    catalogue's metadata; a string column `text` among them holds the captions."""
    return pa.schema(
        [
            pa.field("photo_id", pa.string(), nullable=False),
            pa.field("category", pa.string(), nullable=False),
            pa.field(VECTOR, pa.list_(pa.float32(), dim), nullable=False),
            pa.field("thumbnail", pa.binary()),
            pa.field("content", pa.string(), nullable=False),
            *(fields or ()),
        ]
    )


class Gallery:
    """One version of a gallery, open for search. Later versions do not affect it."""

    def __init__(
        self,
        dataset: lance.LanceDataset,
        folder: Folder,
        cache: CacheConfig | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """`cache`: without one, an indexed search of a large gallery reads the table each time.
        `metadata`: for a version that does not store its own yet."""
        self._dataset = dataset
        self.metadata = metadata or read_metadata(dataset)
        self.version: int = dataset.version
        self.dim: int = dataset.schema.field(VECTOR).type.list_size
        self._cache = version_cache = VersionCache(dataset, cache)
        self.rows = Rows(dataset, version_cache.open_captions())
        self._category_counts = self.rows.category_counts()
        table, plan = folder.child(TABLE), self.metadata.plan
        self.vectors, self.searcher = _open_searcher(dataset, table, plan, self.rows, version_cache)
        self.statistics = VectorStatistics(self.searcher, self.vectors, len(self.rows))

    @property
    def count(self) -> int:
        """The number of photos."""
        return len(self.rows)

    @property
    def unindexed_count(self) -> int:
        """The number of photos that each search scans, because the vector index does not cover them."""
        return count_unindexed_rows(self._dataset)

    @property
    def categories(self) -> list[str]:
        """The categories of the photos, sorted."""
        return sorted(self._category_counts)

    @property
    def columns(self) -> dict[str, str]:
        """The columns that conditions may name, with their types."""
        return {name: str(kind) for name, kind in filterable_columns(self._dataset.schema).items()}

    def search(
        self, vectors: Features, k: int, category: str | None = None, where: Sequence[Condition] = ()
    ) -> list[list[Hit]]:
        """The k photos (or fewer) nearest to each vector (Q, D), best first. Any vector length will do.

        A hit matches the category and every condition of `where`. Raises InputError for a wrong dimension,
        k < 1, an unknown category, and a condition that does not fit the columns.
        """
        query_QD = self.normalize(vectors)
        filter = self.make_filter(k, category, where)
        rankings = self.searcher.nearest(query_QD, min(k, self.count), filter)
        return [to_hits(self.rows, ranking) for ranking in rankings]

    def make_filter(self, k: int, category: str | None, where: Sequence[Condition]) -> Filter | None:
        """The filter of a search for k hits. Raises InputError as `search`."""
        if k < 1:
            raise InputError(f"k: {k} is less than 1; use at least 1")
        if category is not None and category not in self._category_counts:
            available = suggest(category, self.categories)
            raise InputError(f"category: no category {category!r}; available: {available}")
        category_filter = [] if category is None else [Condition("category", "eq", category)]
        return render_filter([*where, *category_filter], self._dataset.schema)

    @property
    def origin(self) -> str:
        """Where the photos came from, `folder:URI` or `table:URI`; empty if they have no files or unknown."""
        return read_origin(self._dataset)

    def value(self, photo_id: str, column: str) -> Any:
        """The value of a photo in a column; None for an unknown id or column."""
        index = self.rows.index_of(photo_id)
        if index is None or column not in self._dataset.schema.names:
            return None
        return self._dataset.take([index], columns=[column])[column][0].as_py()

    def thumbnail(self, photo_id: str) -> bytes | None:
        """The JPEG thumbnail of a photo; None for an unknown id or a gallery without thumbnails."""
        data: bytes | None = self.value(photo_id, "thumbnail")
        return data

    def vector(self, photo_id: str) -> Features | None:
        """The vector (D,) of a photo; None for an unknown id."""
        index = self.rows.index_of(photo_id)
        return None if index is None else TableVectors(self._dataset)[np.array([index])][0]

    def normalize(self, vectors: Features) -> Features:
        """Unit vectors (Q, D) of any length. Raises InputError for a wrong dimension."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InputError(f"vectors: shape {vectors.shape}, but the gallery needs (Q, {self.dim})")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def open_gallery(
    uri: str, checkpoint_digest: str, version: int | None = None, cache: CacheConfig | None = None
) -> Gallery:
    """Open a version of a gallery (None: the published one) for vectors of that checkpoint.

    Raises InputError for a missing gallery or version, if nothing is published, and for a gallery of another
    checkpoint: its vectors have the right shape, but no meaning.
    """
    return Gallery(open_version(uri, checkpoint_digest, version), Folder(uri), cache)


def open_version(uri: str, checkpoint_digest: str, version: int | None = None) -> lance.LanceDataset:
    """Check as `open_gallery` does, but read no rows."""
    folder = Folder(uri)
    read_manifest(folder, "gallery")
    dataset = open_table(folder, PUBLISHED if version is None else version)
    gallery_digest = read_metadata(dataset).checkpoint
    if gallery_digest != checkpoint_digest:
        raise InputError(
            f"{uri}: made with checkpoint {gallery_digest}, but searched with {checkpoint_digest};"
            f" embed it again with {PRODUCERS['gallery']}"
        )
    return dataset


def table_uri(folder: Folder) -> str:
    """The URI of the table for Lance, on this machine and on Ray workers."""
    return folder.quoted_uri_of(TABLE)


def names_table(function: Callable[Concatenate[Folder, P], T]) -> Callable[Concatenate[Folder, P], T]:
    """Decorator: storage errors (Lance's, too) become an InputError that names the table of the folder."""

    @functools.wraps(function)
    def run(folder: Folder, /, *args: P.args, **options: P.kwargs) -> T:
        with storage_errors(table_uri(folder)):
            return function(folder, *args, **options)

    return run


def open_table(folder: Folder, version: str | int | None = None) -> lance.LanceDataset:
    """Open the table at a version or tag (None: the latest version). Raises InputError on failure."""
    try:
        return lance.dataset(table_uri(folder), version=version)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder.uri}/{TABLE}: version {version!r} cannot be opened ({reason});"
            f" make it with {PRODUCERS['gallery']}"
        ) from error


def read_metadata(dataset: lance.LanceDataset) -> Metadata:
    """The metadata of a version. Raises InputError for a table that is not a gallery."""
    metadata = dataset.schema.metadata or {}
    try:
        return Metadata(**known_fields(Metadata, json.loads(metadata[_METADATA_KEY.encode()])))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{dataset.uri}: not a gallery's table; make one with {PRODUCERS['gallery']}"
        ) from error


def write_metadata(dataset: lance.LanceDataset, metadata: Metadata) -> None:
    """Store the metadata, in a new version that can be opened as a gallery."""
    dataset.update_schema_metadata({_METADATA_KEY: json.dumps(asdict(metadata))})


def _open_searcher(
    dataset: lance.LanceDataset, table: Folder, plan: IndexPlan | None, rows: Rows, cache: VersionCache
) -> tuple[VectorStore, Searcher]:
    if plan is None:
        photo_ND = load_vectors(dataset)
        return photo_ND, ExactSearch(dataset, rows, photo_ND)
    indexed = frozenset(name for index in dataset.describe_indices() for name in index.field_names)
    vectors, tables = cache.open_vectors(), Tables(dataset, cache.open_index(table), indexed)
    # One byte a dimension; the other kinds are for galleries that are too large for that, or on request.
    partitions = cache.open_partitions(rows, vectors, plan) if plan.kind == "IVF_SQ" else None
    index = partitions or LanceIndex(tables, rows, plan)
    return vectors, IndexSearch(tables, rows, vectors, index)
