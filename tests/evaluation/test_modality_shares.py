import numpy as np
import pytest

from stbir.embedding.queries import NO_SKETCH
from stbir.evaluation.modality_shares import modality_shares
from stbir.evaluation.ranking import Ranking


def ranking(queries: list[tuple[int, int, int]]) -> Ranking:
    target, sketch, rank = (np.array([query[i] for query in queries], np.int64) for i in range(3))
    return Ranking(target, sketch, rank, np.zeros((len(queries), 1), np.int64))


# photo, sketch → the ranks by sketch, text, both
RANKS = {(0, 0): (1, 1, 1), (0, 1): (3, 1, 2), (1, 0): (1, 4, 1), (2, 0): (2, 2, 1), (3, 0): (9, 9, 2)}
RANKINGS = {
    "sketch": ranking([(p, s, r[0]) for (p, s), r in RANKS.items()] + [(4, 0, 1)]),  # photo 4 has no text
    "text": ranking([(p, NO_SKETCH, r[1]) for (p, s), r in RANKS.items() if s == 0] + [(5, NO_SKETCH, 1)]),
    "sketch+text": ranking([(p, s, r[2]) for (p, s), r in RANKS.items()]),
}


def test_each_query_counts_once() -> None:
    shares = {each.found_by: each for each in modality_shares(RANKINGS)}  # type: ignore[arg-type]
    assert {name: each.n for name, each in shares.items()} == {
        "either alone": 1,
        "sketch only": 1,
        "text only": 1,
        "only together": 1,
        "none of them": 1,
    }
    assert sum(each.share for each in shares.values()) == pytest.approx(100)
    assert [each.fused for each in shares.values()] == [100, 100, 0, 100, 0]
    assert all(each.low <= each.share <= each.high for each in shares.values())


def test_no_queries_have_no_shares() -> None:
    assert modality_shares({kind: ranking([]) for kind in RANKINGS}) == []  # type: ignore[misc]
