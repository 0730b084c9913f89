"""SHARDS → SHARDS with captions: a vision-language model is asked about each picture, once."""

import argparse
from typing import Any

from ray_jobs.captioning.options import parser
from ray_jobs.cli import run


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the job. Ray and torch load only now, after the arguments have been parsed."""
    from ray_jobs.jobs.caption import caption

    return caption(args)


if __name__ == "__main__":
    run(main, parser())
