"""GALLERY: a Lance table of photo embeddings. A tag says which of its versions is published.

What a version was made from stands in the version itself, so a tag that moves back takes it along.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import lance
import numpy as np
import pyarrow as pa

from stbir.config.choices import IndexKind
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.caption_store import NoTexts, TextsAt, TextsInTable, TooManyError, has_texts, texts_held
from stbir.gallery.filters import Condition, filterable, rendered
from stbir.gallery.index import IndexPlan
from stbir.gallery.local_cache import Cache, Local
from stbir.gallery.rows import VECTOR, Rows, VectorsInTable, vectors_held
from stbir.gallery.search import ExactSearch, Hit, IndexSearch, Searcher, Tables
from stbir.storage.folder import Folder
from stbir.storage.manifest import MADE_BY, read_manifest

__all__ = ["Facts", "Gallery", "Hit", "open_gallery", "open_table", "schema", "table_uri"]

TABLE = "photos.lance"
PUBLISHED = "published"
_FACTS = "stbir.gallery"
_HELD_BYTES = 2**28  # vectors of this size are held in memory, cache or not; and texts


@dataclass(frozen=True)
class Facts:
    """What a version says of itself. `nprobes`: parts of the index a search looks into; 0: no index."""

    checkpoint: str
    nprobes: int = 0
    partitions: int = 0
    kind: IndexKind = "IVF_HNSW_SQ"  # what tables written before this field have

    @classmethod
    def of(cls, checkpoint: str, plan: IndexPlan | None) -> "Facts":
        """What is said of a version with that index."""
        return cls(checkpoint) if plan is None else cls(checkpoint, plan.nprobes, plan.partitions, plan.kind)

    @property
    def plan(self) -> IndexPlan | None:
        """The index of the version; None for exact search."""
        return IndexPlan(self.partitions, self.nprobes, self.kind) if self.nprobes else None


def schema(dim: int, fields: pa.Schema | None = None) -> pa.Schema:
    """The columns of the table: `thumbnail` is a small JPEG, `content` the SHA-256 of the photo's bytes in
    hexadecimal, `fields` the metadata of the catalogue; one of these that is called `text` and holds text
    is told with each hit."""
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

    def __init__(
        self,
        dataset: lance.LanceDataset,
        folder: Folder,
        cache: Cache | None = None,
        facts: Facts | None = None,
    ) -> None:
        """`cache`: where to keep what an indexed search reads; without it, it reads the table each time.
        `facts`: of a version that does not yet say them itself."""
        self._dataset = dataset
        self.facts = facts or read_facts(dataset)
        self.version: int = dataset.version
        self.dim: int = dataset.schema.field(VECTOR).type.list_size
        local = None if cache is None else Local(dataset, cache)
        self._rows = Rows(dataset, _texts(dataset, local))
        self._sizes = self._rows.sizes()
        self._searcher = _searcher(dataset, folder, self.facts.plan, self._rows, local)

    @property
    def count(self) -> int:
        """How many photos there are."""
        return len(self._rows)

    @property
    def categories(self) -> list[str]:
        """The categories of the photos, sorted."""
        return sorted(self._sizes)

    @property
    def columns(self) -> dict[str, str]:
        """What conditions may name, with the types."""
        return {name: str(kind) for name, kind in filterable(self._dataset.schema).items()}

    def search(
        self, vectors: Features, k: int, category: str | None = None, where: Sequence[Condition] = ()
    ) -> list[list[Hit]]:
        """The k photos (fewer where there are fewer) nearest to each vector (Q, D), best first.

        `where`: what the photos must meet, all of it. The vectors need not have unit length. Raises
        InputError for a wrong width, k < 1, a category that is not there, and a condition that does not fit.
        """
        query_QD = self._checked(vectors)
        if k < 1:
            raise InputError(f"k: {k} is less than 1; ask for at least one photo")
        if category is not None and category not in self._sizes:
            raise InputError(f"category: there is no {category!r}; there is {', '.join(self.categories)}")
        of_category = [] if category is None else [Condition("category", "eq", category)]
        filter = rendered([*where, *of_category], self._dataset.schema)
        return self._searcher.nearest(query_QD, min(k, self.count), filter)

    def thumbnail(self, photo_id: str) -> bytes | None:
        """The small JPEG of a photo; None where there is no such photo, or the gallery came without them."""
        place = self._rows.place(photo_id)
        if place is None or "thumbnail" not in self._dataset.schema.names:
            return None
        data: bytes | None = self._dataset.take([place], columns=["thumbnail"])["thumbnail"][0].as_py()
        return data

    def vector(self, photo_id: str) -> Features | None:
        """The vector (D,) of a photo; None where there is no such photo."""
        place = self._rows.place(photo_id)
        return None if place is None else VectorsInTable(self._dataset)[np.array([place])][0]

    def _checked(self, vectors: Features) -> Features:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InputError(f"vectors: shape {vectors.shape}, but the gallery has (Q, {self.dim})")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def open_gallery(
    uri: str, checkpoint_digest: str, version: int | None = None, cache: Cache | None = None
) -> Gallery:
    """A version of a gallery (None: the published one), for vectors of the checkpoint of that digest.

    `cache`: a folder of this machine for what an indexed search reads. Raises InputError where there is no
    gallery or no such version, nothing is published, or another checkpoint made it: its vectors would look
    right and mean nothing.
    """
    return Gallery(open_version(uri, checkpoint_digest, version), Folder(uri), cache)


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


def _searcher(
    dataset: lance.LanceDataset, folder: Folder, plan: IndexPlan | None, rows: Rows, local: Local | None
) -> Searcher:
    if plan is None:
        return ExactSearch(dataset, rows, vectors_held(dataset))
    dim = dataset.schema.field(VECTOR).type.list_size
    at_hand = dataset if local is None else local.index(folder.child(TABLE))
    indexed = frozenset(name for index in dataset.describe_indices() for name in index.field_names)
    tables = Tables(dataset, at_hand, indexed)
    if 4 * len(rows) * dim <= _HELD_BYTES:
        return IndexSearch(tables, rows, vectors_held(dataset), plan)
    photo_ND = VectorsInTable(dataset) if local is None else local.vectors_at(rows, dim)
    return IndexSearch(tables, rows, photo_ND, plan)


def _texts(dataset: lance.LanceDataset, local: Local | None) -> TextsAt:
    if not has_texts(dataset):
        return NoTexts()
    try:
        return texts_held(dataset, _HELD_BYTES)
    except TooManyError:
        return TextsInTable(dataset) if local is None else local.texts()
