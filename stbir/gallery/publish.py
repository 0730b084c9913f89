"""A written table becomes a gallery: its index, its recall, and the tag that readers follow."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import lance

from stbir.gallery.arrays import Features
from stbir.gallery.gallery import PUBLISHED, Facts, Gallery, open_table, read_facts, write_facts
from stbir.gallery.index import (
    Build,
    IndexPlan,
    build,
    build_scalar,
    plan_index,
    refuse_too_large,
    vector_index,
)
from stbir.gallery.local_cache import Cache
from stbir.gallery.recall import GATED_AT, Measure, Recalls, gated, sample_queries
from stbir.gallery.rows import VECTOR, vectors
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, write_manifest

__all__ = ["MIN_RECALL", "RECALL_AT", "Candidate", "plan_index", "prepare", "publish"]

RECALL_AT = GATED_AT
MIN_RECALL = 0.99
RELEASE = "release-"  # every version that was published has a tag of its own


@dataclass(frozen=True)
class Candidate:
    """A version that could be published; `recall` of its search at RECALL_AT against exact search, of the
    kind of query it is worst at."""

    version: int
    rows: int
    dim: int
    recall: float
    facts: Facts
    plan: IndexPlan | None
    recalls: Recalls = field(default_factory=dict)


def prepare(
    folder: Folder,
    version: int,
    checkpoint_digest: str,
    plan: IndexPlan | None,
    *,
    build: Build = build,
    columns: tuple[str, ...] = (),
    queries: Mapping[str, Features] | None = None,
    cache: Cache | None = None,
) -> Candidate:
    """Index a written version as planned, note what made it, and measure its recall.

    An index that the version has already stays; rows it does not know are searched beside it. Where recall
    is too low, more parts of the index are looked into until it is not, or all are. `build` makes the vector
    index, `columns` are metadata to index for filters, `queries` real ones to measure with, (Q, D) by
    kind, `cache` as of `open_gallery`. Raises InputError where building takes more memory than there is.
    """
    dataset = open_table(folder, version)
    if plan is not None:
        plan = _kept(dataset) or _built(dataset, plan, build)
        build_scalar(dataset, columns)
    facts, recalls = _measured(dataset, folder, Facts.of(checkpoint_digest, plan), queries, cache)
    rows, dim = dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size
    write_facts(dataset, facts)
    return Candidate(dataset.version, rows, dim, gated(recalls), facts, facts.plan, recalls)


def publish(folder: Folder, candidate: Candidate, counts: dict[str, int]) -> Manifest:
    """Let readers see the candidate: the tag moves, then the manifest. Earlier versions stay."""
    dataset = open_table(folder, candidate.version)
    details = {
        "version": candidate.version,
        "dim": candidate.dim,
        "recall": candidate.recall,
        "recall_at": RECALL_AT,
        "recalls": candidate.recalls,
        "index": asdict(candidate.plan) if candidate.plan else {"kind": "exact"},
    }
    manifest = Manifest("gallery", _digest(dataset), counts, candidate.facts.checkpoint, details)
    keep_manifest(folder, manifest)
    point(dataset, f"{RELEASE}{candidate.version}")
    point(dataset, PUBLISHED)
    write_manifest(folder, manifest)
    return manifest


def point(dataset: lance.LanceDataset, tag: str) -> None:
    """Let a tag name this version."""
    if tag in dataset.tags.list():
        dataset.tags.update(tag, dataset.version)
    else:
        dataset.tags.create(tag, dataset.version)


def keep_manifest(folder: Folder, manifest: Manifest) -> None:
    """Beside the manifest in force each version keeps its own, for the day it comes back."""
    folder.write(manifest_name(manifest.details["version"]), json.dumps(asdict(manifest)).encode())


def manifest_name(version: int) -> str:
    """Where a version's own manifest lies."""
    return f"versions/{version}.json"


def _kept(dataset: lance.LanceDataset) -> IndexPlan | None:
    """The index that the version has already; rows were added to it or taken away since."""
    return read_facts(dataset).plan if vector_index(dataset) else None


def _built(dataset: lance.LanceDataset, plan: IndexPlan, build: Build) -> IndexPlan:
    refuse_too_large(plan, dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size)
    build(dataset, plan)
    return plan


def _measured(
    dataset: lance.LanceDataset,
    folder: Folder,
    facts: Facts,
    queries: Mapping[str, Features] | None,
    cache: Cache | None,
) -> tuple[Facts, Recalls]:
    """The recalls, and the facts with as many parts looked into as the gate needs."""
    measure = Measure(dataset, sample_queries(dataset, queries))
    recalls = measure.recalls(Gallery(dataset, folder, cache, facts))
    while gated(recalls) < MIN_RECALL and facts.plan and (wider := facts.plan.wider()):
        facts = Facts.of(facts.checkpoint, wider)
        recalls = measure.recalls(Gallery(dataset, folder, cache, facts))
    return facts, recalls


def _digest(dataset: lance.LanceDataset) -> str:
    """Over ids and vectors in the order of the table, however it lies in files."""
    ids, embeddings = hashlib.sha256(), hashlib.sha256()
    for batch in dataset.to_batches(columns=["photo_id", VECTOR]):
        ids.update("".join(f"{photo_id}\0" for photo_id in batch["photo_id"].to_pylist()).encode())
        embeddings.update(vectors(batch).tobytes())
    return f"sha256:{hashlib.sha256(ids.digest() + embeddings.digest()).hexdigest()}"
