"""Train a retriever from shards into a checkpoint: `python ray_jobs/train.py --help`.

The same command again goes on where the last good checkpoint stands. The library trains
(`stbir.training`); this file schedules, reports, evaluates and saves.
"""

import argparse
import functools
from typing import Any

from ray_jobs.cli import add_wait, run
from ray_jobs.recipes import recipe_help
from stbir.config.choices import PROFILERS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("train.py", description=(__doc__ or "").split(":")[0])
    add = parser.add_argument
    add("--recipe", required=True, help=f"one of {recipe_help()}")
    add("--shards", required=True, metavar="URI", help="made by prepare_shards.py")
    add("--out", required=True, metavar="URI", help="checkpoint; the same again goes on")
    add(
        "--workers", default="1", metavar="N|MIN:MAX", help="GPUs, or processes on CPUs; as many as there are"
    )
    add("--gpu", choices=["auto", "yes", "no"], default="auto", help="a GPU a worker; auto: if there now")
    add("--split", default="train", help="splits to train on, e.g. train,val")
    add("--validate", metavar="SPLIT", help="split to check every epoch; default: val if there")
    several = functools.partial(add, nargs="*", action="extend", default=[])
    several("--extra-shards", metavar="URI", help="other data sets, for the stages that take them")
    several("--set", metavar="FIELD=VALUE", help="e.g. stages.sketch.epochs=2 batch_size=32")
    add("--save-every", type=int, metavar="STEPS", help="save within epochs too; default: at their ends")
    add("--profile", choices=PROFILERS, help="watch the first worker; see OUT/profile")
    add_wait(parser)
    add("--max-failures", type=int, default=3, help="how many lost workers to survive")
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the job. Ray and torch load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.train import train

    return train(args)


if __name__ == "__main__":
    run(main, parser())
