"""The wiring of the endpoint.

serve run serve.app:build checkpoint=URI gallery=URI [config=FILE]

              ┌── sketch ──→ SketchReplica ──┐
HTTP → Ingress                               FusionReplica → hits → Ingress → HTTP
              └── text ────→ TextReplica ────┘  (gallery)
"""

import getpass
import logging
import os
import socket
import warnings
from typing import Any

import click
from ray import serve
from ray.serve import Application

from serve import environment
from serve.deployments.ingress import Ingress
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.messages import Release
from serve.rollout.records import GcsStore, ReleaseRecords
from serve.rollout.release import resolve
from serve.settings import Settings, read_settings
from stbir.errors import InputError

log = logging.getLogger(__name__)
ARGUMENTS = ("checkpoint", "gallery", "config")
USAGE = "serve run serve.app:build checkpoint=URI gallery=URI [config=FILE]"


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
        return build_application(args)
    except InputError as error:
        raise StartupError(str(error)) from error


def build_application(args: dict[str, str]) -> Application:
    """Same as `build`, but raises InputError for a missing checkpoint or a gallery of another checkpoint."""
    settings = read_settings(args.get("config"))
    release = resolve({"checkpoint": args["checkpoint"], "gallery": args["gallery"]})
    if release.version is None:
        log.warning("%s: no gallery is published yet; searches answer 503 until one is", release.gallery)
    return _bind(settings, release)


def _bind(settings: Settings, release: Release) -> Application:
    user_config = {"checkpoint": release.checkpoint, "gallery": release.gallery, "version": release.version}

    def deployment(cls: type, options: dict[str, Any]) -> Any:
        try:
            return serve.deployment(cls, user_config=user_config, **options)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"config: options of {cls.__name__}: {reason}; see serve/config.yaml") from error

    def low_priority(cls: type, options: dict[str, Any]) -> Any:
        return deployment(cls, environment.with_low_priority(options))

    text, records = settings.text, ReleaseRecords(GcsStore(), _built_by())
    return deployment(Ingress, settings.ingress.options).bind(
        low_priority(SketchReplica, settings.sketch.options).bind(settings.sketch.batching, records),
        low_priority(TextReplica, text.options).bind(text.batching, records, text.text_cache),
        low_priority(FusionReplica, settings.fusion.options).bind(records, settings.fusion.cache),
        settings,
        records,
    )


def _built_by() -> str:
    """The user and the host of this process, for the records of releases."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _check_arguments(args: dict[str, str]) -> None:
    for name in ("checkpoint", "gallery"):
        if not args.get(name):
            raise InputError(f"{name}: missing; {USAGE}")
    for name in args:
        if name not in ARGUMENTS:
            raise InputError(f"{name}: no such argument; {USAGE}")
