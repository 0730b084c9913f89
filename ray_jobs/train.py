"""Shards → checkpoint: trains a retriever with a recipe, and resumes an interrupted run."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
import functools
from typing import Any

from ray_jobs.cli import add_resource_timeout, add_retired, run
from ray_jobs.recipes import recipe, recipe_help
from stbir.config.choices import PROFILERS, SELECTIONS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a retriever from shards into a checkpoint. Re-run the same command to resume.",
    )
    add = parser.add_argument
    add("--recipe", required=True, help=f"one of {recipe_help()}")
    add("--shards", required=True, metavar="URI", help="output of prepare_shards.py")
    add("--out", required=True, metavar="URI", help="checkpoint to write, or to resume from")
    init = "checkpoint whose encoders the run starts from; recipes finetune… also take its model"
    add("--init-from", metavar="CHECKPOINT", help=init)
    workers = "number of GPUs or CPU processes; a range is elastic (default 1)"
    add("--workers", default="1", metavar="N|MIN:MAX", help=workers)
    gpu = "one GPU per worker; auto: if the cluster has enough (default auto)"
    add("--gpu", choices=["auto", "yes", "no"], default="auto", help=gpu)
    add(
        "--train-split",
        default="train",
        metavar="SPLITS",
        help="splits to train on, e.g. train,val (default train)",
    )
    val_split = "split to validate on after each epoch, or `none` (default: val, or a tenth held out)"
    add("--val-split", metavar="SPLIT", help=val_split)
    select = "checkpoint to publish: of the epoch with the best mean MRR on validation, or the last"
    add("--select", choices=SELECTIONS, default="best", help=f"{select} (default best)")
    add_list = functools.partial(add, nargs="*", action="extend", default=[])
    add_list("--aux-shards", metavar="URI", help="auxiliary data sets, for the stages with `aux`")
    add_list("--set", metavar="FIELD=VALUE", help="e.g. stages.sketch.epochs=2 batch_size=32")
    interval = "also save a checkpoint every STEPS steps (default: after each epoch only)"
    add("--checkpoint-every", type=int, dest="checkpoint_interval", metavar="STEPS", help=interval)
    add("--profile", choices=PROFILERS, help="profile the first worker, into OUT/profile")
    add_resource_timeout(parser)
    add_retired(parser, {"--split": "--train-split", "--validate": "--val-split"})
    add_retired(parser, {"--extra-shards": "--aux-shards", "--save-every": "--checkpoint-every"})
    add("--max-failures", type=int, default=3, help="number of tolerated worker failures (default 3)")
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Ray and torch are imported only here, after the arguments are checked."""
    recipe(args.recipe)  # refuses an unknown name at once
    from ray_jobs.jobs.train import train

    return train(args)


if __name__ == "__main__":
    run(main, parser())
