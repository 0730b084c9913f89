"""Evaluate a CHECKPOINT on a split of SHARDS, and write a REPORT: sketch, text and sketch+text queries."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import add_backend, run
from stbir.config.choices import PROTOCOLS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("evaluate", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="URI", help="made by train.py")
    add("--shards", required=True, metavar="URI", help="made by prepare_shards.py")
    add("--split", required=True, help="its photos are the gallery, its sketches and captions the queries")
    add("--out", required=True, metavar="URI", help="output folder of report.json and report.html")
    protocol = "one query per sketch, or per photo with its sketches averaged (default: %(default)s)"
    add("--protocol", choices=PROTOCOLS, default=PROTOCOLS[0], help=protocol)
    robustness = "also evaluate with corrupted sketches and texts: light, medium, heavy"
    add("--robustness", action="store_true", help=robustness)
    add("--seed", type=int, default=0, help="of the corruptions of --robustness (default: %(default)s)")
    store = "store the probability of a match by score in the checkpoint; give a split of no training"
    add("--store-probabilities", action="store_true", help=store)
    add_backend(parser)
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Ray and torch are imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.evaluate import evaluate_checkpoint

    return evaluate_checkpoint(args)


if __name__ == "__main__":
    run(main, parser())
