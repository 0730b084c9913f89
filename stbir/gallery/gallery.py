"""GALLERY: photo embeddings in a store of vectors. A tag marks the published version."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.filters import Condition, Filter, filterable_columns, render_filter, suggest
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.metadata import Metadata, read_metadata
from stbir.gallery.origin import read_origin
from stbir.gallery.rows import TableVectors
from stbir.gallery.search import Hit, to_hits
from stbir.gallery.statistics import VectorStatistics
from stbir.gallery.store import open_store
from stbir.gallery.table import PUBLISHED, Table, dimension
from stbir.storage.folder import Folder
from stbir.storage.manifest import PRODUCERS, read_manifest


class Gallery:
    """One version of a gallery, open for search. Later versions do not affect it."""

    def __init__(
        self,
        table: Table,
        folder: Folder,
        cache: CacheConfig | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """`cache`: without one, an indexed search of a large Lance table reads it each time.
        `metadata`: for a version that does not store its own yet."""
        self._table = table
        self.metadata = metadata or read_metadata(table)
        self.version: int = table.version
        self.dim = dimension(table.schema)
        self._open = open_store(folder).open_search(table, self.metadata.plan, cache)
        self.rows, self.vectors, self.searcher = self._open.rows, self._open.vectors, self._open.searcher
        self._category_counts = self.rows.category_counts()
        self.statistics = VectorStatistics(self.searcher, self.vectors, len(self.rows))

    @property
    def count(self) -> int:
        """The number of photos."""
        return len(self.rows)

    @property
    def unindexed_count(self) -> int:
        """The number of photos that each search scans, because the vector index does not cover them."""
        return self._open.unindexed_count

    @property
    def categories(self) -> list[str]:
        """The categories of the photos, sorted."""
        return sorted(self._category_counts)

    @property
    def columns(self) -> dict[str, str]:
        """The columns that conditions may name, with their types."""
        return {name: str(kind) for name, kind in filterable_columns(self._table.schema).items()}

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
        return render_filter([*where, *category_filter], self._table.schema)

    @property
    def origin(self) -> str:
        """Where the photos came from, `folder:URI` or `table:URI`; empty if they have no files or unknown."""
        return read_origin(self._table)

    def value(self, photo_id: str, column: str) -> Any:
        """The value of a photo in a column; None for an unknown id or column."""
        index = self.rows.index_of(photo_id)
        if index is None or column not in self._table.schema.names:
            return None
        return self._table.take([index], columns=[column])[column][0].as_py()

    def thumbnail(self, photo_id: str) -> bytes | None:
        """The JPEG thumbnail of a photo; None for an unknown id or a gallery without thumbnails."""
        data: bytes | None = self.value(photo_id, "thumbnail")
        return data

    def vector(self, photo_id: str) -> Features | None:
        """The vector (D,) of a photo; None for an unknown id."""
        index = self.rows.index_of(photo_id)
        return None if index is None else TableVectors(self._table)[np.array([index])][0]

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


def open_version(uri: str, checkpoint_digest: str, version: int | None = None) -> Table:
    """Check as `open_gallery` does, but read no rows."""
    folder = Folder(uri)
    read_manifest(folder, "gallery")
    table: Table = open_table(folder, PUBLISHED if version is None else version)
    gallery_digest = read_metadata(table).checkpoint
    if gallery_digest != checkpoint_digest:
        raise InputError(
            f"{uri}: made with checkpoint {gallery_digest}, but searched with {checkpoint_digest};"
            f" embed it again with {PRODUCERS['gallery']}"
        )
    return table


def open_table(folder: Folder, version: str | int | None = None) -> Any:
    """Open the table at a version or tag (None: the latest version): a `Table`, as its store has it. Raises
    InputError on failure."""
    return open_store(folder).open(version)
