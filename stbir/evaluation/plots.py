"""Plots of the report pages: SVG whose colours are CSS variables of the page."""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal

import matplotlib
from matplotlib.figure import Figure

from stbir.augmentation.query_corruption import LEVELS
from stbir.embedding.queries import QUERY_KINDS, QueryKind
from stbir.evaluation.comparison import Comparison
from stbir.evaluation.metrics import accuracy_curve
from stbir.evaluation.ranking import Ranking
from stbir.evaluation.reliability import Reliability
from stbir.evaluation.robustness import CORRUPTED_INPUTS, Robustness

MAX_K = 50
# Placeholder colours in matplotlib's SVG → CSS variables of the page, for its light and dark schemes.
_INK, _GRID = "#010101", "#020202"
_LINES: dict[QueryKind, str] = {"sketch": "#030303", "text": "#040404", "sketch+text": "#050505"}
_CSS = {
    _INK: "var(--ink)",
    _GRID: "var(--line)",
    **{colour: f"var(--{kind.replace('+', '-')})" for kind, colour in _LINES.items()},
}


def accuracy_plot(rankings: Mapping[QueryKind, Ranking], gallery_size: int) -> str:
    """SVG of Acc@k for k = 1 … MAX_K (at most the gallery size), one line per kind of query."""
    ks = range(1, min(MAX_K, gallery_size) + 1)
    with _style("stbir"):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for kind, ranking in rankings.items():
            if len(ranking.ranks_Q):
                values = accuracy_curve(ranking.ranks_Q, ks)
                axes.plot(ks, values, color=_LINES[kind], label=kind, linewidth=2)
        _format_axes(axes, "k", "Acc@k (%)")
        _legend(axes, "lower right")
        return _svg(figure)


def robustness_plot(robustness: Robustness) -> str:
    """SVG of Acc@1 over LEVELS, one panel per corrupted input, one line per kind of query."""
    with _style("stbir-robustness"):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        panels = figure.subplots(1, len(CORRUPTED_INPUTS), sharey=True)
        for axes, corrupted in zip(panels, CORRUPTED_INPUTS, strict=True):
            for kind in QUERY_KINDS:
                if (values := robustness.curve(corrupted, kind)) is not None:
                    axes.plot(LEVELS.values(), values, "o-", color=_LINES[kind], label=kind, linewidth=2)
            _format_axes(axes, f"{corrupted} corrupted", "Acc@1 (%)" if axes is panels[0] else "")
            axes.set_xticks(list(LEVELS.values()), list(LEVELS))
            axes.margins(x=0.08)
        _legend(panels[-1], "upper right")
        return _svg(figure)


def reliability_plot(by_kind: Mapping[QueryKind, Reliability]) -> str:
    """SVG of the share of right hits over their probability, one line per kind of query."""
    with _style("stbir-reliability"):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=_GRID, linewidth=2)
        for kind, each in by_kind.items():
            axes.plot(each.probability, each.right, "o-", color=_LINES[kind], label=kind, linewidth=2)
        _format_axes(axes, "probability of a match (%)", "right (%)")
        _legend(axes, "lower right")
        return _svg(figure)


def difference_plot(comparison: Comparison) -> str:
    """SVG of paired differences of Acc@1 from the first recipe, with confidence intervals."""
    recipes = comparison.recipes[1:]
    with _style("stbir-differences"):
        figure = Figure(figsize=(9.6, 1.2 + 0.7 * len(recipes)), layout="constrained")
        axes = figure.subplots()
        for offset, kind in enumerate(QUERY_KINDS):
            for row, recipe in enumerate(recipes):
                if (difference := comparison.differences[recipe][kind].get("acc@1")) is not None:
                    y, label = row + 0.2 * (offset - 1), kind if row == 0 else None
                    axes.plot([difference.mean], [y], "o", color=_LINES[kind], label=label)
                    if difference.low is not None and difference.high is not None:
                        axes.plot([difference.low, difference.high], [y, y], color=_LINES[kind], linewidth=2)
        _format_axes(axes, "difference of Acc@1 (points)", "")
        axes.axvline(0, color=_INK, linewidth=1)
        axes.set_yticks(range(len(recipes)), recipes)
        axes.set_ylim(len(recipes) - 0.5, -0.5)
        axes.margins(x=0.08)
        _legend(axes, "upper right")
        return _svg(figure)


def _style(salt: str) -> AbstractContextManager[None]:
    """`salt` determines the ids inside the SVG; two plots on one page need different ones."""
    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt})


def _format_axes(axes: "matplotlib.axes.Axes", x: str, y: str) -> None:
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.set_ylim(0, 102)
    axes.margins(x=0.01)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_INK, length=0)
    axes.spines[:].set_visible(False)


def _legend(axes: "matplotlib.axes.Axes", position: Literal["lower right", "upper right"]) -> None:
    if axes.lines:
        axes.legend(loc=position, frameon=False, labelcolor=_INK)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # HTML takes no XML declaration
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return svg
