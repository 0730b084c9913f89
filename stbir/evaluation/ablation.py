"""ABLATION artifact: the comparison of many trials as JSON and as a self-contained HTML page."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from markupsafe import Markup

from stbir.evaluation.comparison import COLUMNS, Comparison, Difference, Spread, value_of
from stbir.evaluation.plots import difference_plot
from stbir.evaluation.report import align_columns, format_number, template
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, write_artifact

JSON, HTML = "ablation.json", "ablation.html"
TEMPLATE = "ablation.html.j2"
Statistic = TypeVar("Statistic", Spread, Difference)


def write(
    uri: str, comparison: Comparison, trials: Sequence[Mapping[str, Any]], made_from: str, **facts: Any
) -> Manifest:
    """Write the ABLATION: both files, then the manifest. `facts` describe how the trials were made."""
    content = {**facts, **comparison.as_dict(), "trials": list(trials)}
    page = html(comparison, trials, facts)
    files = {JSON: json.dumps(content, indent=2).encode(), HTML: page.encode()}
    return write_artifact(Folder(uri), "ablation", files, {"trials": len(trials)}, made_from)


def html(comparison: Comparison, trials: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """`ablation.html`, self-contained."""
    return template(TEMPLATE).render(
        comparison=comparison,
        columns={column: _title(column) for column in COLUMNS},
        means=lambda recipe, column: " / ".join(map(_mean, comparison.spreads[recipe][column].values())),
        spread=lambda recipe, column: _spread(_first_measure(comparison.spreads[recipe], column)),
        difference=lambda recipe, column: _difference(_first_measure(comparison.differences[recipe], column)),
        value=lambda trial, column: format_number(value_of(trial, column, COLUMNS[column][0])),
        plot=Markup(difference_plot(comparison) if comparison.recipes[1:] else ""),
        trials=trials,
        facts=facts,
    )


def table(comparison: Comparison) -> str:
    """Text table of each recipe's Acc@1 or AUC, and below it the paired difference from the first recipe."""
    lines = [["recipe (Acc@1, AUC)", *map(_title, COLUMNS)]]
    for recipe in comparison.recipes:
        spreads, differences = comparison.spreads[recipe], comparison.differences[recipe]
        lines.append([recipe, *(_spread(_first_measure(spreads, column)) for column in COLUMNS)])
        if recipe != comparison.recipes[0]:
            paired = (_difference(_first_measure(differences, column)) for column in COLUMNS)
            lines.append(["  difference", *paired])
    return align_columns(lines)


def _title(column: str) -> str:
    return column.replace("distorted", "corrupted")


def _first_measure(by_column: Mapping[str, Mapping[str, Statistic]], column: str) -> Statistic | None:
    return by_column[column].get(COLUMNS[column][0])


def _mean(spread: Spread) -> str:
    return f"{spread.mean:.1f}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return _mean(spread) if spread.deviation is None else f"{spread.mean:.1f} ± {spread.deviation:.1f}"


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "–"
    interval = "" if difference.low is None else f" [{difference.low:+.1f}, {difference.high:+.1f}]"
    return f"{difference.mean:+.1f}{interval}{'*' if difference.significant else ''}"
