"""Acc@k as a picture: an SVG that takes its colours from the page it stands in."""

import io
from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from stbir.retrieval.evaluate import Ranking
from stbir.retrieval.metrics import curve
from stbir.retrieval.queries import QueryKind

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
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "stbir"}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for kind, ranking in rankings.items():
            if len(ranking.ranks_Q):
                axes.plot(ks, curve(ranking.ranks_Q, ks), color=_LINES[kind], label=kind, linewidth=2)
        _dress(axes)
        return _svg(figure)


def _dress(axes: "matplotlib.axes.Axes") -> None:
    axes.set_xlabel("k", color=_INK)
    axes.set_ylabel("Acc@k (%)", color=_INK)
    axes.set_ylim(0, 102)
    axes.margins(x=0.01)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_INK, length=0)
    axes.spines[:].set_visible(False)
    if axes.lines:
        axes.legend(loc="lower right", frameon=False, labelcolor=_INK)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # without the XML head, as HTML wants it
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return svg
