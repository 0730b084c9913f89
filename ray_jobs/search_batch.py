"""Search a GALLERY with many queries: Parquet files of sketches, texts or vectors in, HITS out."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import add_backend, add_max_error_rate, add_resource_timeout, run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("search_batch", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="URI", help="made by train.py")
    add("--gallery", required=True, metavar="URI", help="made by embed_gallery.py")
    queries = "a Parquet file or a folder of them, with query_id, and sketch, text or vector"
    add("--queries", required=True, metavar="URI", help=queries)
    add("--out", required=True, metavar="URI", help="output folder of hits.parquet and refused.parquet")
    add("--k", type=int, default=10, help="hits per query (%(default)s)")
    weight = "weight of the sketch against the text, 0 to 1 (%(default)s)"
    add("--sketch-weight", type=float, default=0.5, help=weight)
    add("--category", help="search this category only")
    add("--where", metavar="JSON", help="filter conditions: a list of {column, op, value}")
    negative = "what hits should not show; may be given several times"
    add("--without", action="append", default=[], metavar="TEXT", help=negative)
    add("--group", action="store_true", help="near-duplicates form one hit")
    add("--workers", type=int, default=1, help="actors that encode and search (%(default)s)")
    add("--batch", type=int, default=256, help="queries per batch (%(default)s)")
    add("--cache", metavar="FOLDER", help="cache for index searches, on each machine")
    add_backend(parser)
    add_max_error_rate(parser, "largest accepted share of invalid queries")
    add_resource_timeout(parser)
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Ray and torch are imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.search_batch import search_batch

    return search_batch(args)


if __name__ == "__main__":
    run(main, parser())
