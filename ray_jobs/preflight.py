"""Preflight checks of a job: one table of results (ok, warning, missing), each with its remedy."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import add_resource_timeout, add_retired, run
from stbir.config.choices import CATALOGUE_KINDS, PREFLIGHT_JOBS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("preflight.py", description=__doc__)
    add = parser.add_argument
    add("--job", required=True, choices=PREFLIGHT_JOBS, help="job to check")
    for option in ("recipe", "shards", "checkpoint", "gallery", "out"):
        add(f"--{option}", help="as in that job")
    add("--split", help="as --train-split or --split of that job")
    add("--photos", metavar="KIND:URI", help=f"as in embed_gallery.py: {', '.join(CATALOGUE_KINDS)}")
    add("--config", metavar="URI", help="with --job serve: as config= of the endpoint")
    add("--workers", help="as in that job")
    add("--gpu", choices=["auto", "yes", "no"], default="auto", help="as in that job")
    add("--set", nargs="*", action="extend", default=[], metavar="FIELD=VALUE", help="as in train.py")
    add_resource_timeout(parser)
    add_retired(parser, {"--for": "--job"})
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Ray and torch are imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.preflight import preflight

    return preflight(args)


if __name__ == "__main__":
    run(main, parser())
