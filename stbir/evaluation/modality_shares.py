"""How much sketch+text queries needed both modalities: which of them finds the photo alone at rank 1."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stbir.embedding.queries import NO_SKETCH, QueryKind
from stbir.evaluation.bootstrap import mean_intervals
from stbir.evaluation.ranking import Ranking

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class ModalityShare:
    """A part of the sketch+text queries: its share in percent with its interval, and the Acc@1 of fusion."""

    found_by: str
    n: int
    share: float
    low: float
    high: float
    fused: float | None


def modality_shares(rankings: Mapping[QueryKind, Ranking]) -> list[ModalityShare]:
    """The sketch+text queries by the modalities that find the photo alone. Every query counts once.

    Empty without sketch+text queries.
    """
    fused = rankings["sketch+text"]
    if not len(fused.ranks_Q):
        return []
    by_sketch_Q = _are_first(rankings["sketch"], zip(fused.target_Q, fused.sketch_Q, strict=True))
    by_text_Q = _are_first(rankings["text"], ((target, NO_SKETCH) for target in fused.target_Q))
    by_fusion_Q = fused.ranks_Q == 1
    parts = {
        "either alone": by_sketch_Q & by_text_Q,
        "sketch only": by_sketch_Q & ~by_text_Q,
        "text only": ~by_sketch_Q & by_text_Q,
        "only together": ~by_sketch_Q & ~by_text_Q & by_fusion_Q,
        "none of them": ~by_sketch_Q & ~by_text_Q & ~by_fusion_Q,
    }
    values_QM = 100.0 * np.stack(list(parts.values()), axis=1)
    intervals = mean_intervals(values_QM, fused.target_Q)
    return [
        ModalityShare(
            name, int(part_Q.sum()), float(100 * part_Q.mean()), low, high, _acc(by_fusion_Q[part_Q])
        )
        for (name, part_Q), (low, high) in zip(parts.items(), intervals, strict=True)
    ]


def _are_first(ranking: Ranking, queries: Iterable[tuple[int, int]]) -> Flags:
    """Whether the query of the same photo and sketch has rank 1, for each of `queries`."""
    keys = zip(ranking.target_Q.tolist(), ranking.sketch_Q.tolist(), strict=True)
    is_first = dict(zip(keys, (ranking.ranks_Q == 1).tolist(), strict=True))
    return np.array([is_first[int(target), int(sketch)] for target, sketch in queries])


def _acc(hits_Q: Flags) -> float | None:
    return float(100 * hits_Q.mean()) if len(hits_Q) else None
