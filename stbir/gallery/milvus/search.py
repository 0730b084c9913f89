"""Search of a version in Milvus: the server ranks, and returns what a hit shows."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from cachetools import LRUCache

from stbir.gallery.arrays import Features, Indices
from stbir.gallery.caption_store import CAPTION
from stbir.gallery.filter_cache import FilterCache
from stbir.gallery.filters import Filter
from stbir.gallery.index import IndexPlan
from stbir.gallery.milvus.columns import KEY
from stbir.gallery.milvus.filter import expression
from stbir.gallery.milvus.table import MilvusTable
from stbir.gallery.ranking import Ranking
from stbir.gallery.rows import EXACT_SCORING_LIMIT
from stbir.gallery.table import VECTOR
from stbir.storage.milvus_server import quoted

MAX_HITS = 16_384  # that Milvus returns for a query
_CACHED_ROWS = 100_000  # about 30 MB
_CACHED_FILTERS = 10_000
Fields = tuple[str, str, str | None]


class MilvusRows:
    """As in `stbir.gallery.search.RowLookup`. Holds the fields of the rows that recent searches returned."""

    def __init__(self, table: MilvusTable) -> None:
        self._table = table
        caption = [CAPTION] if CAPTION in table.columns else []
        self.columns: Sequence[str] = ("photo_id", "category", *caption)
        self._names = [table.columns[name].name for name in self.columns]
        # A version is immutable, so its rows are, too.
        self._cache: LRUCache[int, Fields] = LRUCache(_CACHED_ROWS)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._table.count_rows()

    def index_of(self, photo_id: str) -> int | None:
        """As in RowLookup."""
        found = self._table.query(f"photo_id == {quoted(photo_id)}", [])
        return int(found[0][KEY]) if found else None

    def ids(self, indices: Indices) -> list[str]:
        """As in RowLookup."""
        return [photo_id for photo_id, _, _ in self.fields(indices)]

    def fields(self, indices: Indices) -> list[Fields]:
        """As in RowLookup."""
        keys = [int(index) for index in indices]
        with self._lock:
            known = {key: self._cache[key] for key in keys if key in self._cache}
        if missing := [key for key in keys if key not in known]:
            rows = self._table.take(missing, self.columns).to_pylist()
            known |= dict(zip(missing, map(self._fields, rows), strict=True))
        return [known[key] for key in keys]

    def remember(self, key: int, entity: dict[str, Any]) -> None:
        """Keep the fields of a row that a search returned."""
        values = dict(zip(self.columns, (entity[name] for name in self._names), strict=True))
        with self._lock:
            self._cache[key] = self._fields(values)

    def category_counts(self) -> dict[str, int]:
        """As in RowLookup."""
        return self._table.count_categories()

    def _fields(self, values: dict[str, Any]) -> Fields:
        return values["photo_id"], values["category"], values.get(CAPTION) or None


class MilvusSearcher:
    """As in `stbir.gallery.search.Searcher`. Scores are exact: no kind of index here stores codes. Returns
    MAX_HITS at most; of equal scores, the server chooses which."""

    def __init__(self, table: MilvusTable, rows: MilvusRows, plan: IndexPlan | None) -> None:
        self._table, self._rows, self._plan = table, rows, plan
        self._counts = FilterCache[int](_CACHED_FILTERS, lambda _: 0)

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[Ranking]:
        """As in Searcher."""
        if not k or not len(query_QD):
            return [Ranking(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in query_QD]
        matches = expression(filter, self._table.columns) if filter else ""
        found = self._table.server.call(
            "search",
            self._table.collection,
            list(query_QD),
            filter=matches,
            limit=min(k, MAX_HITS),
            output_fields=[self._table.columns[name].name for name in self._rows.columns],
            search_params={"metric_type": "IP", "params": self._params(filter, matches)},
            anns_field=VECTOR,
        )
        return [self._ranking(hits) for hits in found]

    def _ranking(self, hits: list[dict[str, Any]]) -> Ranking:
        for hit in hits:
            self._rows.remember(hit[KEY], hit["entity"])
        indices = np.array([hit[KEY] for hit in hits], np.int64)
        scores = np.array([hit["distance"] for hit in hits], np.float32)
        return Ranking(indices, scores).select(np.lexsort((indices, -scores)))

    def _params(self, filter: Filter | None, matches: str) -> dict[str, int]:
        """The partitions to search: all if a filter keeps few rows, which are then scored exactly."""
        if self._plan is None:
            return {}
        if filter is None:
            return {"nprobe": self._plan.nprobes}
        count = self._counts.get(filter.sql, lambda: self._count(matches))
        if count <= EXACT_SCORING_LIMIT:
            return {"nprobe": self._plan.partitions}
        share = count / len(self._rows)
        return {"nprobe": min(self._plan.partitions, self._plan.num_probes(share))}

    def _count(self, matches: str) -> int:
        options = {"filter": matches, "output_fields": ["count(*)"]}
        return int(self._table.server.call("query", self._table.collection, **options)[0]["count(*)"])
