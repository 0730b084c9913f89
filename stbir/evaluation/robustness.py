"""How well poor queries find their photo: the same ones asked again, distorted in grades (docs/method.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np

from stbir.augmentation.query_corruption import LEVELS, Level, distorted
from stbir.config.choices import Protocol
from stbir.data.schema import Row
from stbir.embedding.embed import BATCH
from stbir.embedding.queries import KINDS, Embedded, QueryKind, embed_asked
from stbir.errors import InputError
from stbir.evaluation.evaluate import evaluate_embedded
from stbir.evaluation.metrics import Summary, area
from stbir.gallery.arrays import Features
from stbir.model.retriever import Retriever

Target = Literal["sketch", "text", "both"]
TARGETS: tuple[Target, ...] = get_args(Target)
AREA_OF = ("acc@1", "acc@5")
Asked = tuple[Features, Features]  # sketches (S, D), captions (T, D)


@dataclass(frozen=True)
class Robustness:
    """The summaries of `metrics` by what is distorted, how much, and the kind of query.

    All kinds of query are there for every target: what a target leaves alone stays as it is when clean.
    """

    seed: int
    results: dict[Target, dict[Level, dict[str, Summary]]]

    def curve(self, target: Target, kind: QueryKind, measure: str = "acc@1") -> list[float] | None:
        """The measure at each of LEVELS; None where no such query was asked."""
        values = [self.results[target][level][kind][measure] for level in LEVELS]
        known = [value for value in values if value is not None]
        return known if len(known) == len(values) else None

    def kept(self, target: Target, kind: QueryKind) -> list[float] | None:
        """Acc@1 at each of LEVELS in percent of the clean one; None where that is 0, or nothing was asked."""
        values = self.curve(target, kind)
        return [100 * value / values[0] for value in values] if values and values[0] else None

    def area(self, target: Target, kind: QueryKind, measure: str = "acc@1") -> float | None:
        """The mean height of the curve over severity; None where no such query was asked."""
        values = self.curve(target, kind, measure)
        return None if values is None else area(values, list(LEVELS.values()))

    def as_dict(self) -> dict[str, Any]:
        """The field `robustness` of `report.json`."""
        return {
            "seed": self.seed,
            "severity": dict(LEVELS),
            "results": self.results,
            "kept": {target: {kind: self._kept_at(target, kind) for kind in KINDS} for target in TARGETS},
            "area": {
                target: {kind: {of: self.area(target, kind, of) for of in AREA_OF} for kind in KINDS}
                for target in TARGETS
            },
        }

    def _kept_at(self, target: Target, kind: QueryKind) -> dict[Level, float | None]:
        kept = self.kept(target, kind)
        return dict.fromkeys(LEVELS) if kept is None else dict(zip(LEVELS, kept, strict=True))


def robustness(
    retriever: Retriever,
    embedded: Embedded,
    rows: Iterable[Row],
    protocol: Protocol = "per-sketch",
    sketch_weight: float = 0.5,
    seed: int = 0,
) -> Robustness:
    """Ask again with distorted sketches, distorted captions, and both, at each of LEVELS.

    `embedded` is what `rows` gave clean: the gallery, and level none, are taken from there. `rows` are read
    once more, in their order. How a query is distorted hangs on `seed` and its photo's name
    (`augmentation.query_corruption`). Raises InputError where `rows` are others, for an unknown protocol,
    a negative seed,
    and what is no picture.
    """
    clean = evaluate_embedded(embedded, protocol, sketch_weight).results
    poor = _embed_levels(retriever, rows, embedded.photo_ids, seed)

    def results(target: Target, asked: Asked) -> dict[str, Summary]:
        return evaluate_embedded(_asking(embedded, target, asked), protocol, sketch_weight).results

    found: dict[Target, dict[Level, dict[str, Summary]]] = {
        target: {"none": clean, **{level: results(target, asked) for level, asked in poor.items()}}
        for target in TARGETS
    }
    return Robustness(seed, found)


def _embed_levels(
    retriever: Retriever, rows: Iterable[Row], photo_ids: list[str], seed: int
) -> dict[Level, Asked]:
    """What the rows ask with at every level but none, some rows at a time."""
    stream, names = iter(rows), list[str]()
    parts: dict[Level, list[Asked]] = {level: [] for level, severity in LEVELS.items() if severity}
    while some := list(islice(stream, BATCH)):
        names += [row["photo_id"] for row in some]
        for level, part in parts.items():
            poor = [distorted(row, LEVELS[level], seed) for row in some]
            part.append(embed_asked(retriever, poor))
    if names != photo_ids:
        raise InputError("rows: not those that were embedded; give the same ones again, in the same order")
    return {level: _joined(part) for level, part in parts.items()}


def _joined(parts: Sequence[Asked]) -> Asked:
    sketches, texts = zip(*parts, strict=True)
    return np.concatenate(sketches), np.concatenate(texts)


def _asking(embedded: Embedded, target: Target, asked: Asked) -> Embedded:
    """The same gallery, asked with other sketches, captions or both."""
    sketch_SD = embedded.sketch_SD if target == "text" else asked[0]
    text_TD = embedded.text_TD if target == "sketch" else asked[1]
    return replace(embedded, sketch_SD=sketch_SD, text_TD=text_TD)
