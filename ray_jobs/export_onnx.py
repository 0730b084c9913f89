"""Export the encoders of a CHECKPOINT to ONNX, and compare each with the model in ONNX Runtime."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.cli import run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("export_onnx", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="URI", help="made by train.py or init_checkpoint.py")
    add("--out", required=True, metavar="URI", help="folder of sketch.onnx, photo.onnx and text.onnx")
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Torch is imported only here, after the arguments are parsed."""
    from ray_jobs.jobs.export_onnx import export_checkpoint

    return export_checkpoint(args)


if __name__ == "__main__":
    run(main, parser())
