"""GALLERY: a Lance table of photo embeddings. A tag says which of its versions is published.

What a version was made from stands in the version itself, so a tag that moves back takes it along.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stbir.data.manifest import MADE_BY, read_manifest
from stbir.data.storage import Folder
from stbir.errors import InputError
from stbir.retrieval.embed import Features
from stbir.retrieval.search import VECTOR, ExactSearch, Hit, IndexSearch, Searcher

__all__ = ["Facts", "Gallery", "Hit", "open_gallery", "open_table", "schema", "table_uri"]

TABLE = "photos.lance"
PUBLISHED = "published"
_FACTS = "stbir.gallery"


@dataclass(frozen=True)
class Facts:
    """What a version says of itself. `nprobes`: parts of the index a search looks into; 0: no index."""

    checkpoint: str
    nprobes: int = 0


def schema(dim: int, fields: pa.Schema | None = None) -> pa.Schema:
    """The columns of the table: `thumbnail` is a small JPEG, `content` the SHA-256 of the photo's bytes in
    hexadecimal, `fields` the metadata of the catalogue."""
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
    """One version of a gallery, searchable. It stays that version whatever is published meanwhile."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset = dataset
        self.facts = read_facts(dataset)
        self.version: int = dataset.version
        self.dim: int = dataset.schema.field(VECTOR).type.list_size
        # Row by row in the order of the table. Looking an id up here needs no query language.
        self._photo_ids = dataset.to_table(columns=["photo_id"])["photo_id"].combine_chunks()
        self._sizes = _count(dataset.to_table(columns=["category"])["category"])
        self._searcher = _searcher(dataset, self.facts)

    @property
    def count(self) -> int:
        """How many photos there are."""
        return len(self._photo_ids)

    @property
    def categories(self) -> list[str]:
        """The categories of the photos, sorted."""
        return sorted(self._sizes)

    def search(self, vectors: Features, k: int, category: str | None = None) -> list[list[Hit]]:
        """The k photos (fewer where there are fewer) nearest to each vector (Q, D), best first.

        The vectors need not have unit length. Raises InputError for a wrong width, k < 1, and a category
        that is not there.
        """
        query_QD = self._checked(vectors)
        if k < 1:
            raise InputError(f"k: {k} is less than 1; ask for at least one photo")
        if category is not None and category not in self._sizes:
            raise InputError(f"category: there is no {category!r}; there is {', '.join(self.categories)}")
        there = self.count if category is None else self._sizes[category]
        return self._searcher.nearest(query_QD, min(k, there), category)

    def thumbnail(self, photo_id: str) -> bytes | None:
        """The small JPEG of a photo; None where there is no such photo."""
        row = pc.index(self._photo_ids, photo_id).as_py()
        if row < 0:
            return None
        data: bytes | None = self._dataset.take([row], columns=["thumbnail"])["thumbnail"][0].as_py()
        return data

    def vector(self, photo_id: str) -> Features | None:
        """The vector (D,) of a photo; None where there is no such photo."""
        row = pc.index(self._photo_ids, photo_id).as_py()
        if row < 0:
            return None
        return np.asarray(self._dataset.take([row], columns=[VECTOR])[VECTOR][0].as_py(), np.float32)

    def _checked(self, vectors: Features) -> Features:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InputError(f"vectors: shape {vectors.shape}, but the gallery has (Q, {self.dim})")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def open_gallery(uri: str, checkpoint_digest: str, version: int | None = None) -> Gallery:
    """A version of a gallery (None: the published one), for vectors of the checkpoint of that digest.

    Raises InputError where there is no gallery or no such version, nothing is published, or another
    checkpoint made it: its vectors would look right and mean nothing.
    """
    return Gallery(open_version(uri, checkpoint_digest, version))


def open_version(uri: str, checkpoint_digest: str, version: int | None = None) -> lance.LanceDataset:
    """As `open_gallery`, without reading what is in it."""
    folder = Folder(uri)
    read_manifest(folder, "gallery")
    dataset = open_table(folder, PUBLISHED if version is None else version)
    made_by = read_facts(dataset).checkpoint
    if made_by != checkpoint_digest:
        raise InputError(
            f"{uri}: made with checkpoint {made_by}, but searched with {checkpoint_digest};"
            f" embed it again with {MADE_BY['gallery']}"
        )
    return dataset


def table_uri(folder: Folder) -> str:
    """Where the table lies, as Lance and every Ray worker understand it."""
    return folder.at(TABLE) if folder.local else f"{folder.uri}/{TABLE}"


def open_table(folder: Folder, version: str | int | None = None) -> lance.LanceDataset:
    """The table at a version or tag (None: the last written). Raises InputError where it cannot be opened."""
    try:
        return lance.dataset(table_uri(folder), version=version)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder.uri}/{TABLE}: version {version!r} cannot be opened ({reason});"
            f" embed it with {MADE_BY['gallery']}"
        ) from error


def read_facts(dataset: lance.LanceDataset) -> Facts:
    """What the version says of itself. Raises InputError for a table that is no gallery."""
    metadata = dataset.schema.metadata or {}
    try:
        return Facts(**json.loads(metadata[_FACTS.encode()]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{dataset.uri}: not a table of photos; make one with {MADE_BY['gallery']}"
        ) from error


def write_facts(dataset: lance.LanceDataset, facts: Facts) -> None:
    """Makes a new version, the one that can be opened as a gallery."""
    dataset.update_schema_metadata({_FACTS: json.dumps(asdict(facts))})


def _searcher(dataset: lance.LanceDataset, facts: Facts) -> Searcher:
    if facts.nprobes:
        return IndexSearch(dataset, facts.nprobes)
    return ExactSearch(dataset.to_table(columns=["photo_id", "category", VECTOR]))


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    counts: list[dict[str, Any]] = column.value_counts().to_pylist()
    return {each["values"]: each["counts"] for each in counts}
