"""REPORT: what an evaluation found, as JSON for programs and as one HTML file for people."""

import json
from collections.abc import Iterable
from typing import Any

import jinja2
from markupsafe import Markup

from stbir.data.manifest import Manifest, content_digest, write_manifest
from stbir.data.schema import Row
from stbir.data.storage import Folder
from stbir.retrieval.curves import accuracy_curves
from stbir.retrieval.evaluate import Evaluation
from stbir.retrieval.metrics import Summary
from stbir.retrieval.montage import examples

JSON, HTML = "report.json", "report.html"
TEMPLATE = "report.html.j2"
COLUMNS = ("acc@1", "acc@5", "acc@10", "map", "median_rank")
TITLES = ("Acc@1", "Acc@5", "Acc@10", "mAP", "median rank")


def report(evaluation: Evaluation, checkpoint: str, split: str, **facts: Any) -> dict[str, Any]:
    """`report.json`: what was evaluated (digest of the checkpoint, split, other facts), and the figures."""
    return {"checkpoint": checkpoint, "split": split, **evaluation.as_dict(), **facts}


def html(report: dict[str, Any], evaluation: Evaluation, rows: Iterable[Row]) -> str:
    """`report.html`, self-contained. `rows`: those of the evaluation, for the pictures shown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stbir.retrieval", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(TEMPLATE).render(
        report=report,
        titles=TITLES,
        cells=cells,
        curves=Markup(accuracy_curves(evaluation.rankings, evaluation.gallery_size)),
        examples=examples(evaluation, rows),
    )


def write(uri: str, report: dict[str, Any], page: str) -> Manifest:
    """Write the REPORT: both files, then the manifest."""
    folder = Folder(uri)
    folder.write(JSON, json.dumps(report, indent=2).encode())
    folder.write(HTML, page.encode())
    counts = {kind: result["n"] for kind, result in report["results"].items()}
    manifest = Manifest(
        "report",
        content_digest(folder, [JSON, HTML]),
        {"photos": report["gallery_size"], **counts},
        report["checkpoint"],
        {"split": report["split"], "protocol": report["protocol"]},
    )
    write_manifest(folder, manifest)
    return manifest


def table(results: dict[str, Summary]) -> str:
    """The figures as aligned lines of text, one a kind of query."""
    lines = [["query", "n", *TITLES]]
    lines += [[kind, str(result["n"]), *cells(result)] for kind, result in results.items()]
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
