"""Models ingestion, embedding, training, serving and autoscaling at sizes that no test reaches.

`python -m benchmarks.scale_model` fits a discrete-event model to the recorded output of the other benchmarks
(`simulation/figures.yaml`) and compares it with measurements that the fit did not use. It prints for 10^7 to
10^9 photos and 10^3 to 10^5 searches/s the fleet, its cost, what breaks first and which setting moves it, and
the figures that matter most. `--benchmarks FILE …` replaces the recorded output, `--docs` writes the page.
The last line is JSON.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.simulation import capacity, report
from benchmarks.simulation.figures import by_kind, fit, recorded, summaries, values
from benchmarks.simulation.fleet import simulate_burst, with_settings
from benchmarks.simulation.validation import TOLERANCE, Comparison, validate
from ray_jobs.cli import run

DOCUMENT = Path(__file__).parent.parent / "docs" / "scale.md"


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Fit, validate, extrapolate; returns the summary."""
    summary, content = model(args.benchmarks)
    print(report.markdown(content), file=sys.stderr)
    if args.docs:
        report.write_sections(DOCUMENT, content)
    return summary


def model(files: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The summary, and the sections of the document."""
    given = summaries(files)
    figures = with_settings(fit(given, values()))
    compared = validate(figures, given, by_kind(recorded()["held_out"]))
    points = report.points(figures)
    burst = simulate_burst(figures, report.CENTRE[0])
    return _summary(figures, compared, points), report.sections(figures, compared, points, burst)


def _summary(
    figures: dict[str, float], compared: list[Comparison], points: list[report.Point]
) -> dict[str, Any]:
    most = list(capacity.sensitivity(figures, *report.CENTRE).items())[:3]
    return {
        "fitted": {name: round(value, 3) for name, value in figures.items() if name not in values()},
        "errors": {f"{each.run}: {each.figure}": round(each.error, 3) for each in compared},
        "within_tolerance": sum(abs(each.error) <= TOLERANCE for each in compared),
        "points": [_point(each) for each in points],
        "most_sensitive": {name: [round(change, 2) for change in changes] for name, changes in most},
    }


def _point(point: report.Point) -> dict[str, Any]:
    first = point.limits[0]
    return {
        "photos": point.photos,
        "searches_per_s": point.rate,
        "nodes": point.fleet.nodes,
        "dollars_month": round(point.fleet.dollars_month),
        "p99_ms": round(point.p99_ms, 1),
        "breaks_first": first.name if first.ratio > 1 else None,
        "setting": first.setting,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks.scale_model", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--benchmarks", nargs="*", default=[], metavar="FILE", help="output of embed, train, scaling, …")
    add("--docs", action="store_true", help="rewrite the generated part of docs/scale.md")
    return parser


if __name__ == "__main__":
    run(main, parser())
