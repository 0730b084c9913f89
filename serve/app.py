"""The application of `serve run` and `serve deploy`.

serve run serve.app:build checkpoint=URI gallery=URI [config=FILE] [host=ADDRESS] [port=N]
"""

import os
import warnings

import click
from ray.serve import Application

from serve import environment
from serve.address import NAMES, check_address, listen
from stbir.errors import InputError

ARGUMENTS = ("checkpoint", "gallery", "config", *NAMES)
USAGE = "serve run serve.app:build checkpoint=URI gallery=URI [config=FILE] [host=ADDRESS] [port=N]"


class StartupError(click.ClickException):
    """Ends `serve run` with one line instead of a traceback."""

    exit_code = 2


def build(args: dict[str, str]) -> Application:
    """The application for `serve run`. A bad argument ends the command with one line and exit code 2."""
    environment.set_defaults(os.environ)
    # `serve run` starts Ray after this. Ray forks only to execute, which is safe with Lance's threads.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    try:
        _check_arguments(args)
        check_address(args)
        from serve.wiring import build_application  # imports torch, which takes seconds

        application = build_application(args)
        listen(args)
        return application
    except InputError as error:
        raise StartupError(str(error)) from error


def _check_arguments(args: dict[str, str]) -> None:
    for name in ("checkpoint", "gallery"):
        if not args.get(name):
            raise InputError(f"{name}: missing; {USAGE}")
    for name in args:
        if name not in ARGUMENTS:
            raise InputError(f"{name}: no such argument; {USAGE}")
