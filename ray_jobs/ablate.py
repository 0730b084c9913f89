"""Ablation study: train and evaluate recipes x seeds x folds as Ray tasks, and compare the results."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
import functools
from typing import Any

from ray_jobs.cli import add_resource_timeout, add_retired, run
from ray_jobs.recipes import recipe_help


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("ablate", description=__doc__)
    add = parser.add_argument
    several = functools.partial(add, nargs="+", action="extend")
    several("--recipes", required=True, help=f"the first is the baseline; of {recipe_help()}")
    several("--seeds", type=int, default=[], help="(default 0)")
    several("--folds", metavar="SPLIT", help="evaluate on each, train on the others (default fold…)")
    add("--shards", required=True, metavar="URI", help="made by prepare_shards.py --folds N")
    several("--aux-shards", metavar="URI", default=[], help="other data sets, as in train.py")
    several("--set", metavar="FIELD=VALUE", default=[], help="for all recipes, e.g. fewer epochs")
    add("--cpus", type=int, default=2, help="CPUs per trial (%(default)s)")
    add("--out", required=True, metavar="URI", help="output folder; re-run the same command to resume")
    add_resource_timeout(parser)
    add_retired(parser, {"--extra-shards": "--aux-shards"})
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Ray and torch are imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.ablate import ablate

    return ablate(args)


if __name__ == "__main__":
    run(main, parser())
