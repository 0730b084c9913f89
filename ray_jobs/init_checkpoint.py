"""Write a CHECKPOINT of a CLIP model without training: its image encoder also encodes sketches."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("init_checkpoint", description=__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="a model of open_clip, e.g. ViT-B-32")
    weights = "tag that open_clip downloads, e.g. laion2b_s34b_b79k, or the path or URI of a weights file"
    add("--pretrained", required=True, metavar="TAG|PATH|URI", help=weights)
    add("--out", required=True, metavar="URI", help="checkpoint to write")
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Torch is imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.init_checkpoint import init_checkpoint

    return init_checkpoint(args)


if __name__ == "__main__":
    run(main, parser())
