"""REPORT artifact: an evaluation as JSON and as a self-contained HTML page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from stbir.augmentation.query_corruption import LEVELS
from stbir.data.schema import Row
from stbir.embedding.queries import QueryKind
from stbir.evaluation.evaluate import Evaluation
from stbir.evaluation.examples import corruption_examples, examples
from stbir.evaluation.metrics import ACCURACY_AT, Summary
from stbir.evaluation.modality_shares import ModalityShare
from stbir.evaluation.plots import accuracy_plot, reliability_plot, robustness_plot
from stbir.evaluation.reliability import Reliability
from stbir.evaluation.robustness import AUC_MEASURES, CorruptedInput, Robustness
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, write_artifact

JSON, HTML = "report.json", "report.html"
TEMPLATE, ROBUSTNESS_TEMPLATE = "report.html.j2", "robustness.html.j2"
RELIABILITY_TEMPLATE = "reliability.html.j2"
MEASURES = {f"acc@{k}": f"Acc@{k}" for k in ACCURACY_AT} | {"map": "MRR", "median_rank": "median rank"}
AUC_TITLES = [f"AUC {MEASURES[measure]}" for measure in AUC_MEASURES]
SHARE_TITLES = ["found at rank 1 by", "queries", "% of all", "Acc@1 of sketch+text"]
# The kinds of query that a corrupted input changes; for "both", the only one that changes in both.
AFFECTED_KINDS: dict[CorruptedInput, tuple[QueryKind, ...]] = {
    "sketch": ("sketch", "sketch+text"),
    "text": ("text", "sketch+text"),
    "both": ("sketch+text",),
}


def report(evaluation: Evaluation, checkpoint: str, split: str, **facts: Any) -> dict[str, Any]:
    """`report.json`: digest of the checkpoint, split, results, other facts (date, recipe, model, shards)."""
    return {"checkpoint": checkpoint, "split": split, **evaluation.as_dict(), **facts}


def html(
    report: dict[str, Any], evaluation: Evaluation, rows: Iterable[Row], sections: Sequence[Markup] = ()
) -> str:
    """`report.html`, self-contained. `rows`: those of the evaluation, for the images of the examples.

    `sections` follow the plot of Acc@k.
    """
    return template(TEMPLATE).render(
        report=report,
        titles=MEASURES.values(),
        format_row=format_row,
        format_number=format_number,
        share_titles=SHARE_TITLES,
        share_rows=shares_rows(evaluation.modality_shares),
        plot=Markup(accuracy_plot(evaluation.rankings, evaluation.gallery_size)),
        sections=sections,
        examples=examples(evaluation, rows),
    )


def robustness_section(robustness: Robustness, rows: Iterable[Row]) -> Markup:
    """Section of the page on corrupted queries: table, plot, examples. `rows`: those of the evaluation."""
    section = template(ROBUSTNESS_TEMPLATE).render(
        rows=robustness_rows(robustness),
        levels=list(LEVELS),
        auc_titles=AUC_TITLES,
        plot=Markup(robustness_plot(robustness)),
        examples=corruption_examples(rows, robustness.seed),
        seed=robustness.seed,
    )
    return Markup(section)


def reliability_section(by_kind: Mapping[QueryKind, Reliability]) -> Markup:
    """Section of the page on the probability of a match: plot and expected calibration error."""
    errors = {kind: format_number(each.error) for kind, each in by_kind.items()}
    plot = Markup(reliability_plot(by_kind))
    return Markup(template(RELIABILITY_TEMPLATE).render(errors=errors, plot=plot))


def robustness_rows(robustness: Robustness) -> list[list[str]]:
    """Rows by corrupted input and affected kind of query: Acc@1 (and percent of clean) per level, AUCs."""
    return [
        [corrupted, kind, *_by_level(robustness, corrupted, kind), *_aucs(robustness, corrupted, kind)]
        for corrupted, kinds in AFFECTED_KINDS.items()
        for kind in kinds
    ]


def _by_level(robustness: Robustness, corrupted: CorruptedInput, kind: QueryKind) -> list[str]:
    relative = robustness.relative(corrupted, kind)
    percents = [""] * len(LEVELS) if relative is None else ["", *(f" ({p:.0f} %)" for p in relative[1:])]
    cells = [format_value(robustness.results[corrupted][level][kind], "acc@1") for level in LEVELS]
    return [cell + percent for cell, percent in zip(cells, percents, strict=True)]


def _aucs(robustness: Robustness, corrupted: CorruptedInput, kind: QueryKind) -> list[str]:
    return [format_number(robustness.auc(corrupted, kind, measure)) for measure in AUC_MEASURES]


def template(name: str) -> jinja2.Template:
    """A template of this package."""
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
    """Text table of the results, one line per kind of query."""
    lines = [[kind, str(result["n"]), *format_row(result)] for kind, result in results.items()]
    return align_columns([["query", "n", *MEASURES.values()], *lines])


def robustness_table(robustness: Robustness) -> str:
    """Text table of `robustness_rows`."""
    return align_columns([["corrupted", "query", *LEVELS, *AUC_TITLES], *robustness_rows(robustness)])


def align_columns(lines: list[list[str]]) -> str:
    """Pad cells to the width of their column: the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))])
        for name, *cells in lines
    )


def format_row(result: Summary) -> list[str]:
    """The cells of MEASURES; a dash if there were no queries."""
    return [format_value(result, measure) for measure in MEASURES]


def format_value(result: Summary, measure: str) -> str:
    """A measure and its interval, if it has one."""
    low, high = result.get(f"{measure}_low"), result.get(f"{measure}_high")
    interval = "" if low is None or high is None else f" [{low:.0f}, {high:.0f}]"
    return format_number(result[measure]) + interval


def format_number(value: float | None) -> str:
    """One decimal; a dash for None."""
    return "–" if value is None else f"{value:.1f}"


def shares_table(shares: Sequence[ModalityShare]) -> str:
    """Text table of the modalities that sketch+text queries needed."""
    return align_columns([SHARE_TITLES, *shares_rows(shares)])


def shares_rows(shares: Sequence[ModalityShare]) -> list[list[str]]:
    """Rows: found by, queries, percent of all with its interval, Acc@1 of sketch+text."""
    return [
        [
            each.found_by,
            str(each.n),
            f"{each.share:.1f} [{each.low:.0f}, {each.high:.0f}]",
            format_number(each.fused),
        ]
        for each in shares
    ]
