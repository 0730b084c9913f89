"""SHARDS → SHARDS with captions by a vision-language model."""

if __name__ == "__main__":  # before the imports below, which take a while
    from ray_jobs.interrupts import handle_interrupts

    handle_interrupts()

import argparse
from typing import Any

from ray_jobs.captioning.options import parser
from ray_jobs.cli import run


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run the job. Imports Ray only after the arguments have been parsed."""
    from ray_jobs.jobs.caption import caption

    return caption(args)


if __name__ == "__main__":
    run(main, parser())
