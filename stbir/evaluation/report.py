"""REPORT: what an evaluation found, as JSON for programs and as one HTML file for people."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from stbir.augmentation.query_corruption import LEVELS
from stbir.data.schema import Row
from stbir.embedding.queries import QueryKind
from stbir.evaluation.evaluate import Evaluation
from stbir.evaluation.examples import distorted_examples, examples
from stbir.evaluation.metrics import Summary
from stbir.evaluation.plots import accuracy_curves, robustness_curves
from stbir.evaluation.robustness import AREA_OF, Robustness, Target
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, write_artifact

JSON, HTML = "report.json", "report.html"
TEMPLATE = "report.html.j2"
COLUMNS = ("acc@1", "acc@5", "acc@10", "map", "median_rank")
ROBUSTNESS_TEMPLATE = "robustness.html.j2"
AREA_TITLES = ("area, Acc@1", "area, Acc@5")
# What a target leaves alone is clean at every level; and both at once are asked only together.
TOUCHED: dict[Target, tuple[QueryKind, ...]] = {
    "sketch": ("sketch", "sketch+text"),
    "text": ("text", "sketch+text"),
    "both": ("sketch+text",),
}
TITLES = ("Acc@1", "Acc@5", "Acc@10", "mAP", "median rank")


def report(evaluation: Evaluation, checkpoint: str, split: str, **facts: Any) -> dict[str, Any]:
    """`report.json`: what was evaluated (digest of the checkpoint, split, other facts), and the figures."""
    return {"checkpoint": checkpoint, "split": split, **evaluation.as_dict(), **facts}


def html(
    report: dict[str, Any], evaluation: Evaluation, rows: Iterable[Row], sections: Sequence[Markup] = ()
) -> str:
    """`report.html`, self-contained. `rows`: those of the evaluation, for the pictures shown.

    `sections` stand behind the curves, in their order.
    """
    return template(TEMPLATE).render(
        report=report,
        titles=TITLES,
        cells=cells,
        curves=Markup(accuracy_curves(evaluation.rankings, evaluation.gallery_size)),
        sections=sections,
        examples=examples(evaluation, rows),
    )


def robustness_section(robustness: Robustness, rows: Iterable[Row]) -> Markup:
    """What `html` shows of poor queries: a table, curves, and some of them. `rows`: as for `html`."""
    page = template(ROBUSTNESS_TEMPLATE).render(
        lines=robustness_lines(robustness),
        levels=list(LEVELS),
        area_titles=AREA_TITLES,
        curves=Markup(robustness_curves(robustness)),
        examples=distorted_examples(rows, robustness.seed),
        seed=robustness.seed,
    )
    return Markup(page)


def robustness_lines(robustness: Robustness) -> list[list[str]]:
    """One line a target and kind of query it touches: Acc@1 at each level and of it what is kept, areas."""
    return [
        [target, kind, *_graded(robustness, target, kind), *_areas(robustness, target, kind)]
        for target, kinds in TOUCHED.items()
        for kind in kinds
    ]


def _graded(robustness: Robustness, target: Target, kind: QueryKind) -> list[str]:
    values, kept = robustness.curve(target, kind), robustness.kept(target, kind)
    if values is None:
        return ["–"] * len(LEVELS)
    shares = [""] * len(LEVELS) if kept is None else ["", *(f" ({share:.0f} %)" for share in kept[1:])]
    return [f"{value:.1f}{share}" for value, share in zip(values, shares, strict=True)]


def _areas(robustness: Robustness, target: Target, kind: QueryKind) -> list[str]:
    areas = [robustness.area(target, kind, measure) for measure in AREA_OF]
    return ["–" if area is None else f"{area:.1f}" for area in areas]


def template(name: str) -> jinja2.Template:
    """A page of this room."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stbir.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def write(uri: str, report: dict[str, Any], page: str) -> Manifest:
    """Write the REPORT: both files, then the manifest."""
    counts = {kind: result["n"] for kind, result in report["results"].items()}
    return write_artifact(
        Folder(uri),
        "report",
        {JSON: json.dumps(report, indent=2).encode(), HTML: page.encode()},
        {"photos": report["gallery_size"], **counts},
        report["checkpoint"],
        {"split": report["split"], "protocol": report["protocol"]},
    )


def table(results: dict[str, Summary]) -> str:
    """The figures as aligned lines of text, one a kind of query."""
    lines = [[kind, str(result["n"]), *cells(result)] for kind, result in results.items()]
    return aligned([["query", "n", *TITLES], *lines])


def robustness_table(robustness: Robustness) -> str:
    """The lines of `robustness_lines`, aligned."""
    return aligned([["distorted", "query", *LEVELS, *AREA_TITLES], *robustness_lines(robustness)])


def aligned(lines: list[list[str]]) -> str:
    """Columns as wide as they need be: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        )
        for first, *rest in lines
    )


def cells(result: Summary) -> list[str]:
    """The figures of one row in the order of TITLES; a dash where nothing was asked."""
    return ["–" if (value := result[column]) is None else f"{value:.1f}" for column in COLUMNS]
