"""The wiring of the endpoint.

serve run serve.app:build checkpoint=URI gallery=URI [config=FILE]

              ┌── sketch ──→ SketchReplica ──┐
HTTP → Ingress                               FusionReplica → hits → Ingress → HTTP
              └── text ────→ TextReplica ────┘  (gallery)
"""

import logging
import os
import warnings
from typing import Any

import click
from ray import serve
from ray.serve import Application

from serve import environment
from serve.deployments.ingress import Ingress
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.messages import Release
from serve.rollout.release import resolve
from serve.settings import Settings, read_settings
from stbir.errors import InputError

log = logging.getLogger(__name__)
ARGUMENTS = ("checkpoint", "gallery", "config")


class Refusal(click.ClickException):
    """Ends `serve run` with one line instead of a traceback."""

    exit_code = 2


def build(args: dict[str, str]) -> Application:
    """The application, from the arguments of `serve run`. Bad ones end the command: one line, exit code 2."""
    environment.set_defaults(os.environ)
    # `serve run` starts Ray after this; Ray forks only to execute, which leaves Lance's threads unharmed.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    try:
        return wire(_known(args))
    except InputError as error:
        raise Refusal(str(error)) from error


def wire(args: dict[str, str]) -> Application:
    """As `build`, but raises InputError: where there is no checkpoint, or the gallery is of another one."""
    settings = read_settings(args.get("config"))
    release = resolve({"checkpoint": args["checkpoint"], "gallery": args["gallery"]})
    if release.version is None:
        log.warning("%s: no gallery is published yet; searches answer 503 until one is", release.gallery)
    return _deployments(settings, release)


def _deployments(settings: Settings, release: Release) -> Application:
    wanted = {"checkpoint": release.checkpoint, "gallery": release.gallery, "version": release.version}

    def deployment(kind: type, options: dict[str, Any]) -> Any:
        return serve.deployment(kind, user_config=wanted, **options)

    def behind(kind: type, options: dict[str, Any]) -> Any:
        return deployment(kind, environment.behind_ingress(options))

    return deployment(Ingress, settings.ingress.options).bind(
        behind(SketchReplica, settings.sketch.options).bind(settings.sketch.batching),
        behind(TextReplica, settings.text.options).bind(settings.text.batching, settings.text.recent),
        behind(FusionReplica, settings.fusion.options).bind(settings.fusion.cache),
        settings,
    )


def _known(args: dict[str, str]) -> dict[str, str]:
    usage = "serve run serve.app:build checkpoint=URI gallery=URI [config=FILE]"
    for name in ARGUMENTS[:2]:
        if not args.get(name):
            raise InputError(f"{name}: missing; {usage}")
    for name in args:
        if name not in ARGUMENTS:
            raise InputError(f"{name}: no such argument; {usage}")
    return args
