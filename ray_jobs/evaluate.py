"""CHECKPOINT + a split of SHARDS → REPORT: sketch, text and both as queries, side by side."""

import argparse
from typing import Any

from ray_jobs.cli import run
from stbir.config.choices import PROTOCOLS


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser("evaluate", description=__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="URI", help="made by train.py")
    parser.add_argument("--shards", required=True, metavar="URI", help="made by prepare_shards.py")
    parser.add_argument(
        "--split", required=True, help="its photos are the gallery, its sketches and texts ask"
    )
    parser.add_argument("--out", required=True, metavar="URI", help="where report.json and report.html go")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=PROTOCOLS[0],
        help="each sketch a query, or all of a photo averaged into one (default: %(default)s)",
    )
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="ask the same again with sketches and texts distorted lightly, medium, heavily",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides how --robustness distorts (default: %(default)s)"
    )
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the job. Ray and torch load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.evaluate import evaluate_checkpoint

    return evaluate_checkpoint(args)


if __name__ == "__main__":
    run(main, parser())
