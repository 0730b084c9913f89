"""Photos, sketches and captions of a source → SHARDS: Parquet files with one row per photo."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import add_max_error_rate, add_resource_timeout, add_retired, run
from stbir.config.choices import REQUIREMENTS, SOURCE_KINDS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="prepare_shards",
        description="Read photos, sketches and captions from a source and write them as SHARDS.",
        epilog="If the share of bad photos or bad sketches exceeds --max-error-rate, the exit code is 1 and"
        " nothing is published. quarantine.parquet in the --out folder lists each error. A new run replaces"
        " the shards; until it ends, readers see the old ones.",
    )
    add = parser.add_argument
    kinds = f"KIND = {' | '.join(SOURCE_KINDS)}; PATH = any fsspec URI, or PHOTOS[,seed=SEED]"
    add("--source", required=True, metavar="KIND:PATH", help=kinds)
    add("--photos", metavar="URI", help="with table:FILE: folder of its photos (default: that of the table)")
    add(
        "--sketches",
        metavar="URI",
        help="with table or folder: sketches, named as their photos or by a column",
    )
    columns = "with table: its columns, e.g. file=filename,caption=text (default: guessed, and printed)"
    add("--columns", default="", metavar="ROLE=COLUMN,…", help=columns)
    add("--out", required=True, metavar="URI", help="folder to write to (path, s3://…)")
    add_max_error_rate(parser, "largest accepted share of bad photos or sketches")
    add("--rows-per-file", type=int, default=128, metavar="N", help="largest number of photos (default 128)")
    require = f"parts that a photo must have: {' | '.join(REQUIREMENTS)}; photo: neither sketch nor text"
    default = "default sketch,text; of table and folder photo"
    add("--require", choices=REQUIREMENTS, metavar="PARTS", help=f"{require} ({default})")
    add_resource_timeout(parser)
    add_retired(parser, {"--requires": "--require"})
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument("--split", metavar="NAME", help="put every photo into this split")
    folds = "distribute all photos except the test split over fold0 … (seeded)"
    splits.add_argument("--folds", type=int, metavar="N", help=folds)
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Ray and torch are imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.prepare_shards import prepare_shards

    return prepare_shards(args)


if __name__ == "__main__":
    run(main, parser())
