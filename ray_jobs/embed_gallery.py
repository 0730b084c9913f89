"""Photos + CHECKPOINT → GALLERY: decode in CPU tasks, encode in actors that hold the photo tower, publish.

Again with the same gallery: only what is new or changed is embedded, and what is gone is removed.
"""

import argparse
from typing import Any

from ray_jobs.cli import add_wait, run
from stbir.config.choices import CATALOGUE_KINDS, INDEX_THRESHOLD


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser("embed_gallery", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", metavar="URI", help="made by train.py")
    add("--shards", metavar="URI", help="the photos: made by prepare_shards.py")
    add("--split", help="only the photos of this split of the shards (default: all)")
    add("--photos", metavar="KIND:URI", help=f"the photos, instead of --shards: {', '.join(CATALOGUE_KINDS)}")
    add("--delete", nargs="+", metavar="ID", help="remove these from what is published, and publish the rest")
    add("--gallery", required=True, metavar="URI", help="where to; again = a new version")
    add("--workers", type=int, help="actors with the photo tower (default: one a GPU, else 1)")
    add("--gpu", choices=["auto", "yes", "no"], default="auto", help="a GPU an actor; auto: if there now")
    add_wait(parser)
    add("--batch", type=int, help="photos encoded at once (default: the size that turns out fastest)")
    add(
        "--index-above",
        type=int,
        default=INDEX_THRESHOLD,
        metavar="PHOTOS",
        help="below: exact (%(default)s)",
    )
    add("--max-bad", type=float, default=0.01, metavar="SHARE", help="bad photos allowed (%(default)s)")
    add("--queries", metavar="NPY", help="vectors of real queries to measure recall with, too")
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the job. Ray and torch load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.embed_gallery import embed_gallery

    return embed_gallery(args)


if __name__ == "__main__":
    run(main, parser())
