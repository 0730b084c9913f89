"""What every command shares: exit codes and the last line of standard output."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from stbir.errors import InputError


class Failed(Exception):
    """The work was done and its result is bad, e.g. too many pictures in quarantine: exit code 1."""

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary


def run(main: Callable[[argparse.Namespace], dict[str, Any]], parser: argparse.ArgumentParser) -> None:
    """Parse, work, print one line of JSON, exit: 0 done, 1 done with a bad result, 2 bad input."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        summary = main(parser.parse_args())
    except Failed as failure:
        print(f"{parser.prog}: {failure}", file=sys.stderr)
        print(json.dumps(failure.summary), flush=True)
        sys.exit(1)
    except Exception as error:
        refusal = input_error(error)
        if refusal is None:
            raise
        print(f"{parser.prog}: {refusal}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(summary), flush=True)


def add_wait(parser: argparse.ArgumentParser) -> None:
    """The option of every command that asks a cluster to grow."""
    wait = "for a cluster to grow (%(default)g)"
    parser.add_argument("--wait", type=float, default=900, metavar="SECONDS", help=wait)


def input_error(error: BaseException | None) -> InputError | None:
    """The InputError behind what was raised, be it here or in a task, where Ray keeps it as `cause`."""
    while error is not None and not isinstance(error, InputError):
        error = getattr(error, "cause", None) or error.__cause__
    return error
