"""Accuracies as a picture: an SVG that takes its colours from the page it stands in."""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal

import matplotlib
from matplotlib.figure import Figure

from stbir.augmentation.query_corruption import LEVELS
from stbir.embedding.queries import KINDS, QueryKind
from stbir.evaluation.comparison import Comparison
from stbir.evaluation.evaluate import Ranking
from stbir.evaluation.metrics import curve
from stbir.evaluation.robustness import TARGETS, Robustness

MOST_K = 50
# Stand-ins that matplotlib writes into the SVG → CSS of the page, so that light and dark both fit.
_INK, _GRID = "#010101", "#020202"
_LINES: dict[QueryKind, str] = {"sketch": "#030303", "text": "#040404", "sketch+text": "#050505"}
_CSS = {
    _INK: "var(--ink)",
    _GRID: "var(--line)",
    **{colour: f"var(--{kind.replace('+', '-')})" for kind, colour in _LINES.items()},
}


def accuracy_curves(rankings: Mapping[QueryKind, Ranking], gallery_size: int) -> str:
    """An <svg> of Acc@k, k = 1 … 50 (or the gallery's size), one line a kind of query that was asked."""
    ks = range(1, min(MOST_K, gallery_size) + 1)
    with _style("stbir"):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for kind, ranking in rankings.items():
            if len(ranking.ranks_Q):
                axes.plot(ks, curve(ranking.ranks_Q, ks), color=_LINES[kind], label=kind, linewidth=2)
        _dress(axes, "k", "Acc@k (%)")
        _legend(axes, "lower right")
        return _svg(figure)


def robustness_curves(robustness: Robustness) -> str:
    """An <svg> of Acc@1 over LEVELS, one panel for each target, one line a kind of query that was asked."""
    with _style("stbir-robustness"):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        panels = figure.subplots(1, len(TARGETS), sharey=True)
        for axes, target in zip(panels, TARGETS, strict=True):
            for kind in KINDS:
                if (values := robustness.curve(target, kind)) is not None:
                    axes.plot(LEVELS.values(), values, "o-", color=_LINES[kind], label=kind, linewidth=2)
            _dress(axes, f"{target} distorted", "Acc@1 (%)" if axes is panels[0] else "")
            axes.set_xticks(list(LEVELS.values()), list(LEVELS))
            axes.margins(x=0.08)
        _legend(panels[-1], "upper right")
        return _svg(figure)


def difference_plot(comparison: Comparison) -> str:
    """An <svg> of the paired differences of Acc@1 from the first recipe, with intervals, by kind of query."""
    recipes = comparison.recipes[1:]
    with _style("stbir-differences"):
        figure = Figure(figsize=(9.6, 1.2 + 0.7 * len(recipes)), layout="constrained")
        axes = figure.subplots()
        for place, kind in enumerate(KINDS):
            for row, recipe in enumerate(recipes):
                if (found := comparison.differences[recipe][kind].get("acc@1")) is not None:
                    y, label = row + 0.2 * (place - 1), kind if row == 0 else None
                    axes.plot([found.mean], [y], "o", color=_LINES[kind], label=label)
                    if found.low is not None and found.high is not None:
                        axes.plot([found.low, found.high], [y, y], color=_LINES[kind], linewidth=2)
        _dress(axes, "difference of Acc@1 (points)", "")
        axes.axvline(0, color=_INK, linewidth=1)
        axes.set_yticks(range(len(recipes)), recipes)
        axes.set_ylim(len(recipes) - 0.5, -0.5)
        axes.margins(x=0.08)
        _legend(axes, "upper right")
        return _svg(figure)


def _style(salt: str) -> AbstractContextManager[None]:
    """`salt`: what the names inside the SVG hang on; two pictures on a page need two."""
    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt})


def _dress(axes: "matplotlib.axes.Axes", x: str, y: str) -> None:
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.set_ylim(0, 102)
    axes.margins(x=0.01)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_INK, length=0)
    axes.spines[:].set_visible(False)


def _legend(axes: "matplotlib.axes.Axes", where: Literal["lower right", "upper right"]) -> None:
    if axes.lines:
        axes.legend(loc=where, frameon=False, labelcolor=_INK)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # without the XML head, as HTML wants it
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return svg
