"""ABLATION: what an experiment of many trials found, as JSON for programs and as one HTML file for people."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from stbir.data.manifest import Manifest, write_artifact
from stbir.data.storage import Folder
from stbir.retrieval.comparison import Comparison, Difference, Spread
from stbir.retrieval.curves import difference_plot
from stbir.retrieval.queries import KINDS
from stbir.retrieval.report import aligned, template

JSON, HTML = "ablation.json", "ablation.html"
TEMPLATE = "ablation.html.j2"
SHOWN = "acc@1"


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
        kinds=KINDS,
        spreads=lambda recipe, kind: " / ".join(map(_mean, comparison.spreads[recipe][kind].values())),
        spread=lambda recipe, kind: _spread(comparison.spreads[recipe][kind].get(SHOWN)),
        difference=lambda recipe, kind: _difference(comparison.differences[recipe][kind].get(SHOWN)),
        plot=Markup(difference_plot(comparison, SHOWN) if comparison.recipes[1:] else ""),
        trials=trials,
        facts=facts,
    )


def table(comparison: Comparison) -> str:
    """Acc@1 of each recipe, and below it the paired difference from the first, as aligned lines."""
    lines = [["recipe (Acc@1)", *KINDS]]
    for recipe in comparison.recipes:
        lines.append([recipe, *(_spread(comparison.spreads[recipe][kind].get(SHOWN)) for kind in KINDS)])
        if recipe != comparison.recipes[0]:
            differences = (comparison.differences[recipe][kind].get(SHOWN) for kind in KINDS)
            lines.append(["  against the first", *map(_difference, differences)])
    return aligned(lines)


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
