"""Shared behaviour of all commands: exit codes, JSON output, options for cluster resources."""

import argparse
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ray_jobs.interrupts import exit_code
from stbir.config.choices import BACKEND_ENV, BACKENDS, INDEX_THRESHOLD, parse_backend
from stbir.errors import InputError, JobFailedError


def run(main: Callable[[argparse.Namespace], dict[str, Any]], parser: argparse.ArgumentParser) -> None:
    """Parse the arguments, run `main`, and print its summary as one line of JSON.

    Exit codes: 0 success, 1 the job failed, 2 invalid input, 130 SIGINT, 143 SIGTERM.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        summary = main(parser.parse_args())
    except BaseException as error:
        if (code := exit_code(error)) is not None:
            sys.exit(code)
        _exit_failed(parser.prog, error)
    _print_summary(summary)


def _print_summary(summary: dict[str, Any]) -> None:
    """Print the last line of standard output. Until Ray is shut down, its own warnings may follow there."""
    if (ray := sys.modules.get("ray")) is not None:
        ray.shutdown()
    print(json.dumps(summary), flush=True)


def _exit_failed(command: str, error: BaseException) -> NoReturn:
    """Print the error of a failed job or of invalid input, and exit. Raises other exceptions again."""
    if isinstance(error, JobFailedError):
        print(f"{command}: {error}", file=sys.stderr)
        _print_summary(error.summary)
        sys.exit(1)
    invalid_input = input_error(error)
    if invalid_input is None:
        raise error
    print(f"{command}: {invalid_input}", file=sys.stderr)
    sys.exit(2)


class _RetiredOption(argparse.Action):
    """Ends parsing with an error that names the new option, which is `const`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.exit(2, f"{parser.prog}: {self.option_strings[0]} is now {self.const}\n")


def add_retired(parser: argparse.ArgumentParser, options: Mapping[str, str]) -> None:
    """Reject renamed options with an error. `options` maps each old option to the new one."""
    parser.allow_abbrev = False  # a prefix must not match a retired option
    add = functools.partial(parser.add_argument, action=_RetiredOption, nargs="?", help=argparse.SUPPRESS)
    for old, new in options.items():
        add(old, const=new, dest=argparse.SUPPRESS, default=argparse.SUPPRESS)


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add `--backend`, for commands that encode; its default is that of the environment, or auto."""
    try:
        default = parse_backend(os.environ.get(BACKEND_ENV, "auto"))
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    backend = "what runs the encoders on a CPU; auto: openvino if it is installed and gains (%(default)s)"
    parser.add_argument("--backend", choices=BACKENDS, default=default, help=backend)


def add_resource_timeout(parser: argparse.ArgumentParser) -> None:
    """Add `--resource-timeout`, for commands that request resources from a cluster."""
    timeout = "how long to wait for the cluster to scale up (%(default)g)"
    parser.add_argument("--resource-timeout", type=float, default=900, metavar="SECONDS", help=timeout)
    add_retired(parser, {"--wait": "--resource-timeout"})


def add_max_error_rate(parser: argparse.ArgumentParser, description: str) -> None:
    """Add `--max-error-rate`, for commands that publish nothing if too many inputs are bad."""
    add = parser.add_argument
    add("--max-error-rate", type=float, default=0.01, metavar="SHARE", help=f"{description} (%(default)s)")
    add_retired(parser, {"--max-bad": "--max-error-rate"})


def add_index_threshold(parser: argparse.ArgumentParser) -> None:
    """Add `--index-threshold`, for commands that index a gallery."""
    threshold = "use exact search up to this many photos (%(default)s)"
    add = parser.add_argument
    add("--index-threshold", type=int, default=INDEX_THRESHOLD, metavar="PHOTOS", help=threshold)
    add_retired(parser, {"--index-above": "--index-threshold"})


def add_max_removed(parser: argparse.ArgumentParser) -> None:
    """Add `--max-removed` and `--yes`, for commands that replace the photos of a gallery."""
    removed = "largest accepted share of published photos that are removed (%(default)s)"
    parser.add_argument("--max-removed", type=float, default=0.2, metavar="SHARE", help=removed)
    parser.add_argument("--yes", action="store_true", help="remove photos whatever --max-removed says")


def max_removed(args: argparse.Namespace) -> float:
    """The share of published photos that may be removed. Raises InputError for one outside [0, 1]."""
    check_share(args, "max_removed")
    return 1.0 if args.yes else float(args.max_removed)


def check_error_rate(args: argparse.Namespace) -> None:
    """Raises InputError for a `--max-error-rate` outside [0, 1]."""
    check_share(args, "max_error_rate")


def check_share(args: argparse.Namespace, name: str) -> None:
    """Raises InputError for a named option outside [0, 1]."""
    value = getattr(args, name)
    if not 0 <= value <= 1:
        raise InputError(f"--{name.replace('_', '-')}: {value} is not a share between 0 and 1")


def check_minimum(args: argparse.Namespace, minimum: int, *names: str) -> None:
    """Raises InputError for the first named option below `minimum`. None stands for an omitted option."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < minimum:
            raise InputError(f"--{name.replace('_', '-')}: {value} is less than {minimum}")


def input_error(error: BaseException | None) -> InputError | None:
    """The InputError that caused an exception, here or in a Ray task; None if there is none."""
    # Ray's task errors are instances of their cause's class too, with the traceback as message.
    while error is not None and (hasattr(error, "cause") or not isinstance(error, InputError)):
        error = getattr(error, "cause", None) or error.__cause__
    return error
