"""Write a CHECKPOINT whose scores are corrected for photos that are near to every query (hubness)."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("calibrate", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="URI", help="made by train.py or init_checkpoint.py")
    add("--shards", required=True, metavar="URI", help="photos with sketches and captions to measure on")
    splits = "splits to measure on: those of the training, never those of an evaluation (%(default)s)"
    add("--split", default="train", metavar="A,B", help=splits)
    add("--out", required=True, metavar="URI", help="checkpoint to write")
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Torch is imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.calibrate import calibrate

    return calibrate(args)


if __name__ == "__main__":
    run(main, parser())
