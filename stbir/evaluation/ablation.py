"""ABLATION: what an experiment of many trials found, as JSON for programs and as one HTML file for people."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from markupsafe import Markup

from stbir.evaluation.comparison import COLUMNS, Comparison, Difference, Spread, figure
from stbir.evaluation.plots import difference_plot
from stbir.evaluation.report import aligned, template
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, write_artifact

JSON, HTML = "ablation.json", "ablation.html"
TEMPLATE = "ablation.html.j2"
Found = TypeVar("Found", Spread, Difference)


def write(
    uri: str, comparison: Comparison, trials: Sequence[Mapping[str, Any]], made_from: str, **facts: Any
) -> Manifest:
    """Write the ABLATION: both files, then the manifest. `facts`: how it was done."""
    found = {**facts, **comparison.as_dict(), "trials": list(trials)}
    page = html(comparison, trials, facts)
    files = {JSON: json.dumps(found, indent=2).encode(), HTML: page.encode()}
    return write_artifact(Folder(uri), "ablation", files, {"trials": len(trials)}, made_from)


def html(comparison: Comparison, trials: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """`ablation.html`, self-contained."""
    return template(TEMPLATE).render(
        comparison=comparison,
        columns=list(COLUMNS),
        spreads=lambda recipe, column: " / ".join(map(_mean, comparison.spreads[recipe][column].values())),
        spread=lambda recipe, column: _spread(_shown(comparison.spreads[recipe], column)),
        difference=lambda recipe, column: _difference(_shown(comparison.differences[recipe], column)),
        figure=lambda trial, column: _figure(figure(trial, column, COLUMNS[column][0])),
        plot=Markup(difference_plot(comparison) if comparison.recipes[1:] else ""),
        trials=trials,
        facts=facts,
    )


def table(comparison: Comparison) -> str:
    """The first measure of each column (Acc@1, or the area of it) of each recipe, and below it the paired
    difference from the first, as aligned lines."""
    lines = [["recipe (Acc@1, area)", *COLUMNS]]
    for recipe in comparison.recipes:
        spreads, differences = comparison.spreads[recipe], comparison.differences[recipe]
        lines.append([recipe, *(_spread(_shown(spreads, column)) for column in COLUMNS)])
        if recipe != comparison.recipes[0]:
            against = (_difference(_shown(differences, column)) for column in COLUMNS)
            lines.append(["  against the first", *against])
    return aligned(lines)


def _shown(found: Mapping[str, Mapping[str, Found]], column: str) -> Found | None:
    """The column's first measure."""
    return found[column].get(COLUMNS[column][0])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _mean(spread: Spread) -> str:
    return f"{spread.mean:.1f}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{spread.mean:.1f}" if spread.deviation is None else f"{spread.mean:.1f} ± {spread.deviation:.1f}"


def _difference(found: Difference | None) -> str:
    if found is None:
        return "–"
    interval = "" if found.low is None else f" [{found.low:+.1f}, {found.high:+.1f}]"
    return f"{found.mean:+.1f}{interval}{'*' if found.clear else ''}"
