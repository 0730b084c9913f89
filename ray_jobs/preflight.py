"""Whether all is there that a job needs, before it runs: one table, each finding with its remedy."""

import argparse
import functools
from typing import Any

from ray_jobs.cli import run
from stbir.config.choices import CATALOGUE_KINDS, PREFLIGHT_JOBS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("preflight.py", description=__doc__)
    add = parser.add_argument
    add("--for", dest="work", required=True, choices=PREFLIGHT_JOBS, help="the job that is to run")
    for option in ("recipe", "shards", "checkpoint", "gallery", "out", "split"):
        add(f"--{option}", help="as in that job")
    add("--photos", metavar="KIND:URI", help=f"as in embed_gallery.py: {', '.join(CATALOGUE_KINDS)}")
    add("--workers", help="as in that job; with --for serve how many towers have a GPU each")
    add(
        "--gpu",
        choices=["auto", "yes", "no"],
        default="auto",
        help="as in that job; yes for a profile with GPUs",
    )
    add("--wait", type=float, default=900, metavar="SECONDS", help="as in that job (%(default)g)")
    several = functools.partial(add, nargs="*", action="extend", default=[])
    several("--set", metavar="FIELD=VALUE", help="as in train.py")
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the job. Ray and torch load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.preflight import preflight

    return preflight(args)


if __name__ == "__main__":
    run(main, parser())
