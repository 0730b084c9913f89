"""Publish a table version as a gallery: build its index, measure its recall, move the tag of the readers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import lance

from stbir.gallery.arrays import Features
from stbir.gallery.gallery import (
    PUBLISHED,
    Gallery,
    Metadata,
    open_table,
    read_metadata,
    write_metadata,
)
from stbir.gallery.index import (
    IndexBuilder,
    IndexPlan,
    build_index,
    build_scalar_indexes,
    check_build_memory,
    vector_index_name,
)
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.recall import MIN_RECALL_K, RecallEvaluator, Recalls, make_recall_queries, worst_recall
from stbir.gallery.rows import VECTOR, extract_vectors
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, write_manifest

MIN_RECALL = 0.99
RELEASE_PREFIX = "release-"  # of the tag that each published version has


@dataclass(frozen=True)
class Candidate:
    """A version that is ready to publish."""

    version: int
    metadata: Metadata
    recalls: Recalls

    @property
    def recall(self) -> float:
        """recall@MIN_RECALL_K of the worst kind of query."""
        return worst_recall(self.recalls)


def prepare(
    folder: Folder,
    version: int,
    checkpoint_digest: str,
    plan: IndexPlan | None,
    *,
    builder: IndexBuilder = build_index,
    columns: tuple[str, ...] = (),
    queries: Mapping[str, Features] | None = None,
    cache: CacheConfig | None = None,
) -> Candidate:
    """Index a version, measure its recall, and store its metadata.

    An existing vector index stays; Lance scans the rows that it does not cover. While the recall is below
    MIN_RECALL, `nprobes` doubles. `columns` are metadata columns to index for filters. `queries` are real
    queries, (Q, D) by kind, to measure with. Raises InputError if the build needs more memory than is free.
    """
    dataset = open_table(folder, version)
    if plan is not None:
        if vector_index_name(dataset) and (existing := read_metadata(dataset).plan):
            plan = existing
        else:
            check_build_memory(plan, dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size)
            builder(dataset, plan)
        build_scalar_indexes(dataset, columns)
    metadata, recalls = _tune_nprobes(dataset, folder, Metadata.of(checkpoint_digest, plan), queries, cache)
    write_metadata(dataset, metadata)
    return Candidate(dataset.version, metadata, recalls)


def publish(folder: Folder, candidate: Candidate, counts: dict[str, int]) -> Manifest:
    """Make readers see the candidate: move the tag, then write the manifest. Earlier versions stay."""
    dataset, plan = open_table(folder, candidate.version), candidate.metadata.plan
    details = {
        "version": candidate.version,
        "dim": dataset.schema.field(VECTOR).type.list_size,
        "recall": candidate.recall,
        "recall_at": MIN_RECALL_K,
        "recalls": candidate.recalls,
        "index": asdict(plan) if plan else {"kind": "exact"},
    }
    manifest = Manifest("gallery", _digest(dataset), counts, candidate.metadata.checkpoint, details)
    # A copy for each version, which a rollback restores.
    folder.write(version_manifest_name(candidate.version), json.dumps(asdict(manifest)).encode())
    set_tag(dataset, f"{RELEASE_PREFIX}{candidate.version}")
    set_tag(dataset, PUBLISHED)
    write_manifest(folder, manifest, files={})
    return manifest


def set_tag(dataset: lance.LanceDataset, tag: str) -> None:
    """Create the tag for this version, or move it here."""
    if tag in dataset.tags.list():
        dataset.tags.update(tag, dataset.version)
    else:
        dataset.tags.create(tag, dataset.version)


def version_manifest_name(version: int) -> str:
    """The file name of a version's manifest copy."""
    return f"versions/{version}.json"


def _tune_nprobes(
    dataset: lance.LanceDataset,
    folder: Folder,
    metadata: Metadata,
    queries: Mapping[str, Features] | None,
    cache: CacheConfig | None,
) -> tuple[Metadata, Recalls]:
    """The recalls, and the metadata with enough probes for MIN_RECALL."""
    evaluator = RecallEvaluator(dataset, make_recall_queries(dataset, queries))
    recalls = evaluator.evaluate(Gallery(dataset, folder, cache, metadata))
    while worst_recall(recalls) < MIN_RECALL and metadata.plan and (plan := metadata.plan.double_nprobes()):
        metadata = Metadata.of(metadata.checkpoint, plan)
        recalls = evaluator.evaluate(Gallery(dataset, folder, cache, metadata))
    return metadata, recalls


def _digest(dataset: lance.LanceDataset) -> str:
    """The digest of ids and vectors in table order; independent of the layout of the files."""
    ids, vectors = hashlib.sha256(), hashlib.sha256()
    for batch in dataset.to_batches(columns=["photo_id", VECTOR]):
        ids.update("".join(f"{photo_id}\0" for photo_id in batch["photo_id"].to_pylist()).encode())
        vectors.update(extract_vectors(batch).tobytes())
    return f"sha256:{hashlib.sha256(ids.digest() + vectors.digest()).hexdigest()}"
