"""Robustness: evaluation of the same queries at several levels of corruption (docs/method.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np

from stbir.augmentation.query_corruption import LEVELS, Level, corrupt_row
from stbir.config.choices import Protocol
from stbir.data.schema import Row
from stbir.embedding.embed import BATCH
from stbir.embedding.queries import QUERY_KINDS, QueryKind, SplitFeatures, embed_sketches_and_texts
from stbir.errors import InputError
from stbir.evaluation.evaluate import evaluate_features
from stbir.evaluation.metrics import Summary, auc
from stbir.gallery.arrays import Features
from stbir.model.retriever import Retriever

CorruptedInput = Literal["sketch", "text", "both"]
CORRUPTED_INPUTS: tuple[CorruptedInput, ...] = get_args(CorruptedInput)
AUC_MEASURES = ("acc@1", "acc@5")
QueryFeatures = tuple[Features, Features]  # sketches (S, D), captions (T, D)


@dataclass(frozen=True)
class Robustness:
    """Summaries of the metrics by corrupted input, level and kind of query.

    Each corrupted input has all kinds of query; a kind that it does not affect has its clean results.
    """

    seed: int
    results: dict[CorruptedInput, dict[Level, dict[str, Summary]]]

    def curve(self, corrupted: CorruptedInput, kind: QueryKind, measure: str = "acc@1") -> list[float] | None:
        """The measure at each of LEVELS; None if there are no such queries."""
        values = [self.results[corrupted][level][kind][measure] for level in LEVELS]
        numbers = [value for value in values if value is not None]
        return numbers if len(numbers) == len(values) else None

    def relative(self, corrupted: CorruptedInput, kind: QueryKind) -> list[float] | None:
        """Acc@1 at each of LEVELS in percent of the clean Acc@1; None if that is 0 or missing."""
        values = self.curve(corrupted, kind)
        return [100 * value / values[0] for value in values] if values and values[0] else None

    def auc(self, corrupted: CorruptedInput, kind: QueryKind, measure: str = "acc@1") -> float | None:
        """Area under the curve of the measure over severity (0 to 1); None if there are no such queries."""
        values = self.curve(corrupted, kind, measure)
        return None if values is None else auc(values, list(LEVELS.values()))

    def as_dict(self) -> dict[str, Any]:
        """The field `robustness` of `report.json`."""
        return {
            "seed": self.seed,
            "severity": dict(LEVELS),
            "results": self.results,
            "kept": {
                of: {kind: self._relatives(of, kind) for kind in QUERY_KINDS} for of in CORRUPTED_INPUTS
            },
            "area": {of: {kind: self._aucs(of, kind) for kind in QUERY_KINDS} for of in CORRUPTED_INPUTS},
        }

    def _relatives(self, corrupted: CorruptedInput, kind: QueryKind) -> dict[Level, float | None]:
        values = self.relative(corrupted, kind)
        return dict.fromkeys(LEVELS) if values is None else dict(zip(LEVELS, values, strict=True))

    def _aucs(self, corrupted: CorruptedInput, kind: QueryKind) -> dict[str, float | None]:
        return {measure: self.auc(corrupted, kind, measure) for measure in AUC_MEASURES}


def evaluate_robustness(
    retriever: Retriever,
    features: SplitFeatures,
    rows: Iterable[Row],
    protocol: Protocol = "per-sketch",
    sketch_weight: float = 0.5,
    seed: int = 0,
) -> Robustness:
    """Evaluate with corrupted sketches, corrupted captions, and both, at each of LEVELS.

    `features` are those of the clean `rows`; they provide the gallery and the level "none". `rows` are read
    again, in order. `seed` and the photo's id determine a corruption (`augmentation.query_corruption`).

    Raises InputError if `rows` are not those of `features`, for an unknown protocol, a negative seed, or an
    image that does not decode.
    """
    clean = evaluate_features(features, protocol, sketch_weight).results
    queries_at = _embed_levels(retriever, rows, features.photo_ids, seed)

    def results(corrupted: CorruptedInput, queries: QueryFeatures) -> dict[str, Summary]:
        return evaluate_features(_with_queries(features, corrupted, queries), protocol, sketch_weight).results

    by_input: dict[CorruptedInput, dict[Level, dict[str, Summary]]] = {
        corrupted: {"none": clean, **{level: results(corrupted, q) for level, q in queries_at.items()}}
        for corrupted in CORRUPTED_INPUTS
    }
    return Robustness(seed, by_input)


def _embed_levels(
    retriever: Retriever, rows: Iterable[Row], photo_ids: list[str], seed: int
) -> dict[Level, QueryFeatures]:
    """Features of the corrupted queries at each level except "none". Reads the rows in batches."""
    stream, ids = iter(rows), list[str]()
    parts: dict[Level, list[QueryFeatures]] = {level: [] for level, severity in LEVELS.items() if severity}
    while batch := list(islice(stream, BATCH)):
        ids += [row["photo_id"] for row in batch]
        for level, part in parts.items():
            corrupted = [corrupt_row(row, LEVELS[level], seed) for row in batch]
            part.append(embed_sketches_and_texts(retriever, corrupted))
    if ids != photo_ids:
        raise InputError("rows: not those that were embedded; give the same rows in the same order")
    return {level: _concatenate(part) for level, part in parts.items()}


def _concatenate(parts: Sequence[QueryFeatures]) -> QueryFeatures:
    sketches, texts = zip(*parts, strict=True)
    return np.concatenate(sketches), np.concatenate(texts)


def _with_queries(
    features: SplitFeatures, corrupted: CorruptedInput, queries: QueryFeatures
) -> SplitFeatures:
    """Replace the features of the corrupted sketches, captions or both; the gallery stays."""
    sketch_SD = features.sketch_SD if corrupted == "text" else queries[0]
    text_TD = features.text_TD if corrupted == "sketch" else queries[1]
    return replace(features, sketch_SD=sketch_SD, text_TD=text_TD)
