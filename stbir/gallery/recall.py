"""How much of what exact search finds a gallery's own search finds, over queries of several kinds."""

from collections.abc import Mapping

import lance
import numpy as np

from stbir.gallery.arrays import Features
from stbir.gallery.gallery import Gallery, Hit
from stbir.gallery.rows import VECTOR, VectorsInTable, vectors

RECALL_AT = (1, 10, 100)
GATED_AT = 10
_SAMPLE = 100
# Cosines computed in another order differ by this much and mean the same.
_SAME = 1e-5
# A drawing lies this far from its photo, about: the cosine of a stand-in for one with the photo.
_DRAWN_COSINE = 0.6
Recalls = dict[str, dict[str, float]]


def sample_queries(
    dataset: lance.LanceDataset, given: Mapping[str, Features] | None = None
) -> dict[str, Features]:
    """Queries by kind, (Q, D) each: what stands in for people's, and what is `given` of theirs.

    photo: photos themselves, as "more like this" asks. between: half-way points of two photos.
    drawn: photos with noise, as far from any photo as sketches are.
    """
    random = np.random.default_rng(0)
    places = random.integers(dataset.count_rows(), size=(3, _SAMPLE))
    wanted, where = np.unique(places, return_inverse=True)
    photo_3QD = VectorsInTable(dataset)[wanted][where.reshape(places.shape)]
    noise_QD = _unit(random.normal(size=photo_3QD[0].shape))
    kinds = {
        "photo": photo_3QD[0],
        "between": _unit(photo_3QD[1] + photo_3QD[2]),
        "drawn": _unit(_DRAWN_COSINE * photo_3QD[0] + (1 - _DRAWN_COSINE**2) ** 0.5 * noise_QD),
    }
    return kinds | {kind: _unit(asked) for kind, asked in (given or {}).items()}


class Measure:
    """Exact answers to the queries, found once, and what share of them a search finds."""

    def __init__(self, dataset: lance.LanceDataset, queries: Mapping[str, Features]) -> None:
        self._queries = dict(queries)
        exact_QK = exact_scores(dataset, np.concatenate(list(queries.values())), max(RECALL_AT))
        ends = np.cumsum([len(asked) for asked in queries.values()])
        self._exact = dict(zip(queries, np.split(exact_QK, ends[:-1]), strict=True))

    def recalls(self, gallery: Gallery) -> Recalls:
        """Recall by kind of query and `@k`; at most as many as there are photos count."""
        return {kind: self._of(gallery, kind) for kind in self._queries}

    def _of(self, gallery: Gallery, kind: str) -> dict[str, float]:
        asked, exact_QK = self._queries[kind], self._exact[kind]
        ten, hundred = (gallery.search(asked, k) for k in RECALL_AT[1:])
        first = [hits[:1] for hits in ten]
        shares = zip(RECALL_AT, (first, ten, hundred), strict=True)
        return {f"@{k}": _share(hits, exact_QK[:, :k]) for k, hits in shares}


def gated(recalls: Recalls) -> float:
    """The recall that publishing asks for: at GATED_AT, of the worst kind of query."""
    return min(each[f"@{GATED_AT}"] for each in recalls.values())


def exact_scores(dataset: lance.LanceDataset, query_QD: Features, k: int) -> Features:
    """The k best cosines of each query, descending, (Q, min(k, N)), reading the table once in parts."""
    best_QK = np.empty((len(query_QD), 0), np.float32)
    for batch in dataset.to_batches(columns=[VECTOR]):
        scores = np.concatenate([best_QK, query_QD @ vectors(batch).T], axis=1)
        best_QK = scores if scores.shape[1] <= k else -np.partition(-scores, k - 1, axis=1)[:, :k]
    return -np.sort(-best_QK, axis=1)


def _share(hits: list[list[Hit]], exact_QK: Features) -> float:
    found = [
        sum(hit.score >= exact_K[-1] - _SAME for hit in of_query)
        for of_query, exact_K in zip(hits, exact_QK, strict=True)
    ]
    return float(sum(found) / exact_QK.size)


def _unit(vectors: Features) -> Features:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
