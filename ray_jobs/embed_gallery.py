"""Embed photos with a CHECKPOINT, and publish them as a GALLERY.

A re-run embeds new and changed photos only, and removes the photos that the catalogue no longer has.
"""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import (
    add_backend,
    add_index_threshold,
    add_max_error_rate,
    add_max_removed,
    add_resource_timeout,
    run,
)
from stbir.config.choices import CATALOGUE_KINDS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("embed_gallery", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", metavar="URI", help="made by train.py")
    add("--shards", metavar="URI", help="shards with the photos, made by prepare_shards.py")
    add("--split", help="embed this split of the shards only (default: all)")
    add("--photos", metavar="KIND:URI", help=f"photos instead of --shards: {', '.join(CATALOGUE_KINDS)}")
    column = "read a column of a table as text, int or float"
    add("--column", action="append", default=[], metavar="NAME:TYPE", help=column)
    scheme = "accept URIs of this scheme in a table, besides file, s3, gs and https"
    add("--allow-scheme", action="append", default=[], metavar="SCHEME", help=scheme)
    part = "embed part I of N only, beside other drivers; the same command without it publishes"
    add("--part", metavar="I/N", help=part)
    add("--delete", nargs="+", metavar="ID", help="delete these photos from the published version")
    add("--gallery", required=True, metavar="URI", help="gallery to write; a re-run adds a version")
    add("--workers", type=int, help="encoder actors (default: one for each GPU, else 1)")
    gpu = "give each actor a GPU; auto: if enough are present"
    add("--gpu", choices=["auto", "yes", "no"], default="auto", help=gpu)
    add_resource_timeout(parser)
    add("--batch", type=int, help="batch size of the encoder (default: tuned for throughput)")
    add_backend(parser)
    add_index_threshold(parser)
    add_max_error_rate(parser, "largest accepted share of bad photos")
    add_max_removed(parser)
    add("--queries", metavar="NPY", help="vectors of real queries, to measure the recall with")
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Ray and torch are imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.embed_gallery import embed_gallery

    return embed_gallery(args)


if __name__ == "__main__":
    run(main, parser())
