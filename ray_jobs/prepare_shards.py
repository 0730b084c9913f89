"""Pictures → SHARDS: one Parquet row a photo, every picture read and decoded once, nothing lost unseen."""

import argparse
from typing import Any

from ray_jobs.cli import add_wait, run
from stbir.config.choices import REQUIREMENTS, SOURCE_KINDS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="prepare_shards",
        description="Read photos, sketches and captions from a source and write them as SHARDS.",
        epilog="Exit code 1, and nothing published, where the share of bad photos or of bad sketches exceeds"
        " --max-bad; quarantine.parquet in the --out folder says what is wrong with each. The same command"
        " again replaces the shards; until then those that are there stay readable.",
    )
    add = parser.add_argument
    kinds = f"KIND = {' | '.join(SOURCE_KINDS)}; PATH = any fsspec URI, or PHOTOS[,seed=SEED]"
    add("--source", required=True, metavar="KIND:PATH", help=kinds)
    add("--out", required=True, metavar="URI", help="folder to write to (path, s3://…)")
    add("--max-bad", type=float, default=0.01, metavar="SHARE", help="share that may be bad (default 0.01)")
    add("--rows-per-file", type=int, default=128, metavar="N", help="most photos in a file (default 128)")
    add(
        "--requires",
        choices=REQUIREMENTS,
        default="sketch,text",
        metavar="PARTS",
        help=f"what a photo must have: {' | '.join(REQUIREMENTS)} (default sketch,text; photo: nothing more)",
    )
    add_wait(parser)
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument("--split", metavar="NAME", help="put every photo into this split")
    splits.add_argument(
        "--folds", type=int, metavar="N", help="deal all photos but those of test into fold0 … (seeded)"
    )
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the job. Ray and torch load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.prepare_shards import prepare_shards

    return prepare_shards(args)


if __name__ == "__main__":
    run(main, parser())
