"""Many queries → HITS: Parquet of sketches, captions or vectors in, Parquet of the photos found out."""

import argparse
from typing import Any

from ray_jobs.cli import add_wait, run


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser("search_batch", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="URI", help="made by train.py")
    add("--gallery", required=True, metavar="URI", help="made by embed_gallery.py")
    add(
        "--queries",
        required=True,
        metavar="URI",
        help="Parquet, a file or a folder of files: query_id, and sketch, text or vector",
    )
    add("--out", required=True, metavar="URI", help="where hits.parquet and refused.parquet go")
    add("--k", type=int, default=10, help="hits a query (%(default)s)")
    add("--sketch-weight", type=float, default=0.5, help="what a sketch counts against a text (%(default)s)")
    add("--category", help="search in this one alone")
    add("--where", metavar="JSON", help="conditions: a list of {column, op, value}")
    add("--workers", type=int, default=1, help="actors that encode and search (%(default)s)")
    add("--batch", type=int, default=256, help="queries at once (%(default)s)")
    add("--cache", metavar="FOLDER", help="on each machine: what an indexed search reads")
    add("--max-bad", type=float, default=0.01, metavar="SHARE", help="refused queries allowed (%(default)s)")
    add_wait(parser)
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the job. Ray and torch load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.search_batch import search_batch

    return search_batch(args)


if __name__ == "__main__":
    run(main, parser())
