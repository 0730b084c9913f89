"""Exact ranking of the photos of a split for each query."""

from dataclasses import dataclass

import numpy as np

from stbir.embedding.queries import Queries
from stbir.evaluation import metrics
from stbir.gallery.arrays import Features, Indices

TOP_K = 5
_QUERY_BATCH = 1024
# Cosine similarities of float32 unit vectors are exact to about 1e-7. Rounded, smaller differences become
# ties, and the metrics do not depend on the order of floating-point additions.
_DECIMALS = 6


@dataclass(frozen=True)
class Ranking:
    """Rank of each query's target photo (Q,), and the first TOP_K photos (Q, <= TOP_K)."""

    target_Q: Indices
    sketch_Q: Indices
    ranks_Q: metrics.Ranks
    top_QK: Indices


def rank(queries: Queries, photo_ND: Features) -> Ranking:
    """Exact search for all queries, in batches, so that the scores (Q, N) never fill memory."""
    ranks_Q = np.empty(len(queries.target_Q), np.int64)
    top_QK = np.empty((len(queries.target_Q), min(TOP_K, len(photo_ND))), np.int64)
    for start in range(0, len(ranks_Q), _QUERY_BATCH):
        batch = slice(start, start + _QUERY_BATCH)
        scores_QN = np.round(queries.vectors_QD[batch] @ photo_ND.T, _DECIMALS)
        ranks_Q[batch] = metrics.ranks(scores_QN, queries.target_Q[batch])
        top_QK[batch] = np.argsort(-scores_QN, axis=1, kind="stable")[:, :TOP_K]
    return Ranking(queries.target_Q, queries.sketch_Q, ranks_Q, top_QK)
