"""Recipes x seeds x folds as Ray tasks: one table of means, deviations and paired differences."""

import argparse
import functools
from typing import Any

from ray_jobs.cli import add_wait, run
from ray_jobs.recipes import recipe_help


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("ablate", description=__doc__)
    add = parser.add_argument
    several = functools.partial(add, nargs="+", action="extend")
    several(
        "--recipes",
        required=True,
        help=f"the first is what the others are held against; of {recipe_help()}",
    )
    several("--seeds", type=int, default=[], help="(default 0)")
    several("--folds", metavar="SPLIT", help="each is asked by trials trained on the others (default fold…)")
    add("--shards", required=True, metavar="URI", help="made by prepare_shards.py --folds N")
    several("--extra-shards", metavar="URI", default=[], help="other data sets, as in train.py")
    several("--set", metavar="FIELD=VALUE", default=[], help="for all recipes, e.g. a smaller budget")
    add("--cpus", type=int, default=2, help="CPUs a trial (%(default)s)")
    add("--out", required=True, metavar="URI", help="where to; the same again goes on")
    add_wait(parser)
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the job. Ray and torch load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.ablate import ablate

    return ablate(args)


if __name__ == "__main__":
    run(main, parser())
