"""A written table becomes a gallery: its index, its recall, and the tag that readers follow."""

import hashlib
from dataclasses import asdict, dataclass

import lance
import numpy as np

from stbir.data.manifest import Manifest, write_manifest
from stbir.data.storage import Folder
from stbir.retrieval.embed import Features
from stbir.retrieval.gallery import PUBLISHED, Facts, Gallery, open_table, write_facts
from stbir.retrieval.search import VECTOR, vectors

RECALL_AT = 10
MIN_RECALL = 0.99
# Below this many photos exact search takes a few milliseconds in some hundred MB: an index would only
# cost recall. Measured: 200k x 512 on 2 cores, exact 37 ms a query, Lance's index 5-7 ms.
INDEX_ABOVE = 100_000
_ROWS_A_PARTITION = 8192
_SAMPLE = 200
# Cosines computed in another order differ by this much and mean the same.
_SAME = 1e-5


@dataclass(frozen=True)
class IndexPlan:
    """IVF_HNSW_SQ: `partitions` parts, of which a search looks into `nprobes`."""

    partitions: int
    nprobes: int


@dataclass(frozen=True)
class Candidate:
    """A version that could be published; `recall` of its search at RECALL_AT against exact search."""

    version: int
    rows: int
    dim: int
    recall: float
    facts: Facts
    plan: IndexPlan | None


def plan_index(rows: int, above: int = INDEX_ABOVE) -> IndexPlan | None:
    """The index worth building for so many photos; None where exact search does."""
    if rows <= above:
        return None
    partitions = max(1, rows // _ROWS_A_PARTITION)
    return IndexPlan(partitions, nprobes=min(partitions, max(8, partitions // 8)))


def prepare(folder: Folder, version: int, checkpoint_digest: str, plan: IndexPlan | None) -> Candidate:
    """Index a written version as planned, note what made it, and measure its recall."""
    dataset = open_table(folder, version)
    if plan is not None:
        dataset = dataset.create_index(
            VECTOR, "IVF_HNSW_SQ", metric="cosine", num_partitions=plan.partitions, replace=True
        )
    facts = Facts(checkpoint_digest, plan.nprobes if plan else 0)
    write_facts(dataset, facts)
    dataset = open_table(folder, dataset.version)
    gallery = Gallery(dataset)
    return Candidate(
        gallery.version, gallery.count, gallery.dim, measure_recall(gallery, dataset), facts, plan
    )


def publish(folder: Folder, candidate: Candidate, counts: dict[str, int]) -> Manifest:
    """Let readers see the candidate: the tag moves, then the manifest. Earlier versions stay."""
    dataset = open_table(folder, candidate.version)
    if PUBLISHED in dataset.tags.list():
        dataset.tags.update(PUBLISHED, candidate.version)
    else:
        dataset.tags.create(PUBLISHED, candidate.version)
    details = {
        "version": candidate.version,
        "dim": candidate.dim,
        "recall": candidate.recall,
        "recall_at": RECALL_AT,
        "index": {"kind": "IVF_HNSW_SQ", **asdict(candidate.plan)} if candidate.plan else {"kind": "exact"},
    }
    manifest = Manifest("gallery", _digest(dataset), counts, candidate.facts.checkpoint, details)
    write_manifest(folder, manifest)
    return manifest


def measure_recall(gallery: Gallery, dataset: lance.LanceDataset, k: int = RECALL_AT) -> float:
    """The share of the k nearest photos that the gallery's own search finds, over sample queries."""
    query_QD = _sample_queries(dataset)
    exact_QK = _exact_scores(dataset, query_QD, k)
    found = [
        sum(hit.score >= exact_K[-1] - _SAME for hit in hits)
        for hits, exact_K in zip(gallery.search(query_QD, k), exact_QK, strict=True)
    ]
    return float(sum(found) / exact_QK.size)


def _sample_queries(dataset: lance.LanceDataset) -> Features:
    """Half-way points of random pairs of photos: real queries, too, lie near photos but on none."""
    random = np.random.default_rng(0)
    rows = random.integers(dataset.count_rows(), size=(2, _SAMPLE))
    wanted, where = np.unique(rows, return_inverse=True)
    photo_PD = vectors(dataset.take(wanted.tolist(), columns=[VECTOR]))
    pairs_2QD = photo_PD[where.reshape(rows.shape)]
    middle_QD = pairs_2QD.sum(axis=0)
    return np.asarray(middle_QD / np.linalg.norm(middle_QD, axis=1, keepdims=True), np.float32)


def _exact_scores(dataset: lance.LanceDataset, query_QD: Features, k: int) -> Features:
    """The k best cosines of each query, descending, (Q, min(k, N)), reading the table once in parts."""
    best_QK = np.empty((len(query_QD), 0), np.float32)
    for batch in dataset.to_batches(columns=[VECTOR]):
        scores = np.concatenate([best_QK, query_QD @ vectors(batch).T], axis=1)
        best_QK = -np.sort(-scores, axis=1)[:, :k]
    return best_QK


def _digest(dataset: lance.LanceDataset) -> str:
    """Over ids and vectors in the order of the table, however it lies in files."""
    ids, embeddings = hashlib.sha256(), hashlib.sha256()
    for batch in dataset.to_batches(columns=["photo_id", VECTOR]):
        ids.update("".join(f"{photo_id}\0" for photo_id in batch["photo_id"].to_pylist()).encode())
        embeddings.update(vectors(batch).tobytes())
    return f"sha256:{hashlib.sha256(ids.digest() + embeddings.digest()).hexdigest()}"
