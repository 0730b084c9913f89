"""Publish a table version as a gallery: build its index, measure its recall, move the tag of the readers."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from stbir.gallery.arrays import Features
from stbir.gallery.digest import rows_digest
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import Gallery
from stbir.gallery.index import IndexBuilder, IndexPlan, build_index
from stbir.gallery.latency import MAX_SLOWDOWN, Latencies, measure_latencies, slowdown
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.metadata import Metadata, write_metadata
from stbir.gallery.recall import (
    DRAWN,
    MIN_RECALL_K,
    ExactScorer,
    RecallEvaluator,
    Recalls,
    exact_scores,
    make_recall_queries,
    recall_interval,
    share_filters,
    worst_recall,
)
from stbir.gallery.store import open_store
from stbir.gallery.table import PUBLISHED, Table, dimension, names_table
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, write_manifest

log = logging.getLogger(__name__)
MIN_RECALL = 0.99
RELEASE_PREFIX = "release-"  # of the tag that each published version has
_LATENCY_TRIALS = 3  # other work on the machine may disturb one


@dataclass(frozen=True)
class Candidate:
    """A version that is ready to publish."""

    version: int
    metadata: Metadata
    recalls: Recalls
    latencies: Latencies
    slowdown: float  # see stbir.gallery.latency
    unindexed_rows: int
    recall_interval: tuple[float, float]  # 95 %, of `recall`

    @property
    def is_slow(self) -> bool:
        """Whether its index is much slower than a search of the published version."""
        return self.metadata.plan is not None and self.slowdown > MAX_SLOWDOWN

    @property
    def recall(self) -> float:
        """recall@MIN_RECALL_K of the worst kind of query."""
        return worst_recall(self.recalls)


@names_table
def prepare(
    folder: Folder,
    version: int,
    checkpoint_digest: str,
    plan: IndexPlan | None,
    *,
    builder: IndexBuilder = build_index,
    scorer: ExactScorer = exact_scores,
    columns: tuple[str, ...] = (),
    queries: Mapping[str, Features] | None = None,
    cache: CacheConfig | None = None,
) -> Candidate:
    """Index a version, measure its recall and latency, and store its metadata.

    An existing vector index stays, and takes in the rows that it does not cover; if it has become slow, a new
    one replaces it. While the recall is below MIN_RECALL, `nprobes` doubles. `columns` are metadata columns
    to index for filters. `queries` are real queries, (Q, D) by kind, to measure with. `builder` and `scorer`
    may share the index and the exact scores of recall among processes. Raises InputError if
    the build needs more memory than is free.
    """
    store = open_store(folder)
    table = store.open(version)
    built = store.build_indexes(table, plan, columns, builder)
    metadata = Metadata.of(checkpoint_digest, built.plan)
    candidate = _measure(table, folder, metadata, queries, cache, scorer)
    if plan and built.is_reused and candidate.is_slow:
        log.warning("the index has become %.1f times as slow; building a new one", candidate.slowdown)
        metadata = Metadata.of(checkpoint_digest, store.rebuild_index(table, plan, builder))
        candidate = _measure(table, folder, metadata, queries, cache, scorer)
    write_metadata(table, candidate.metadata)
    return replace(candidate, version=table.version)


@names_table
def publish(folder: Folder, candidate: Candidate, counts: dict[str, int]) -> Manifest:
    """Make readers see the candidate: move the tag, then write the manifest. Earlier versions stay."""
    store, plan = open_store(folder), candidate.metadata.plan
    table = store.open(candidate.version)
    details = {
        "version": candidate.version,
        "dim": dimension(table.schema),
        "recall": candidate.recall,
        "recall_at": MIN_RECALL_K,
        "recall_interval": candidate.recall_interval,
        "recalls": candidate.recalls,
        "latencies": candidate.latencies,
        "unindexed_rows": candidate.unindexed_rows,
        "index": asdict(plan) if plan else {"kind": "exact"},
    }
    manifest = Manifest("gallery", rows_digest(table), counts, candidate.metadata.checkpoint, details)
    # A copy for each version, which a rollback restores.
    folder.write(version_manifest_name(candidate.version), json.dumps(asdict(manifest)).encode())
    store.set_tag(f"{RELEASE_PREFIX}{candidate.version}", candidate.version)
    store.set_tag(PUBLISHED, candidate.version)
    write_manifest(folder, manifest, files={})
    return manifest


def version_manifest_name(version: int) -> str:
    """The file name of a version's manifest copy."""
    return f"versions/{version}.json"


def _measure(
    table: Table,
    folder: Folder,
    metadata: Metadata,
    queries: Mapping[str, Features] | None,
    cache: CacheConfig | None,
    scorer: ExactScorer,
) -> Candidate:
    """The version as a candidate, with enough probes for MIN_RECALL."""
    filters, queries = share_filters(table), make_recall_queries(table, queries)
    evaluator = RecallEvaluator(table, queries, filters, scorer)
    metadata, recalls = _tune_nprobes(evaluator, table, folder, metadata, cache)
    gallery = Gallery(table, folder, cache, metadata)
    latencies, slower = _compare_latency(gallery, folder, queries[DRAWN], {"no filter": [], **filters}, cache)
    interval = recall_interval(recalls, min(map(len, queries.values())))
    unindexed = gallery.unindexed_count
    return Candidate(table.version, metadata, recalls, latencies, slower, unindexed, interval)


def _tune_nprobes(
    evaluator: RecallEvaluator,
    table: Table,
    folder: Folder,
    metadata: Metadata,
    cache: CacheConfig | None,
) -> tuple[Metadata, Recalls]:
    """The recalls, and the metadata with enough probes for MIN_RECALL."""
    recalls = evaluator.evaluate(Gallery(table, folder, cache, metadata))
    while worst_recall(recalls) < MIN_RECALL and metadata.plan and (plan := metadata.plan.double_nprobes()):
        metadata = Metadata.of(metadata.checkpoint, plan)
        recalls = evaluator.evaluate(Gallery(table, folder, cache, metadata))
    return metadata, recalls


def _compare_latency(
    gallery: Gallery,
    folder: Folder,
    query_QD: Features,
    filters: Mapping[str, list[Condition]],
    cache: CacheConfig | None,
) -> tuple[Latencies, float]:
    """The latencies beside those of the published version, and the slowdown: of the best trial."""
    published = _open_published(folder, gallery.dim, cache)
    row_ratio = gallery.count / max(1, published.count) if published else 1
    trials: list[tuple[Latencies, float]] = []
    while len(trials) < _LATENCY_TRIALS and (not trials or trials[-1][1] > MAX_SLOWDOWN):
        latencies = measure_latencies(gallery, published, query_QD, filters)
        trials.append((latencies, slowdown(latencies, row_ratio)))
    return min(trials, key=lambda trial: trial[1])


def _open_published(folder: Folder, dim: int, cache: CacheConfig | None) -> Gallery | None:
    """The published version; None if there is none, or if its vectors have another dimension."""
    store = open_store(folder)
    if PUBLISHED not in store.tags():
        return None
    published = Gallery(store.open(PUBLISHED), folder, cache)
    return published if published.dim == dim else None
