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
from serve.ingress import Ingress
from serve.replicas import FusionReplica, SketchReplica, TextReplica, open_if_published
from serve.settings import Settings, read_settings
from stbir.config import Recipe
from stbir.data.storage import Folder
from stbir.errors import InputError
from stbir.model.checkpoint import pinned, read_recipe

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
    checkpoint, digest = pinned(args["checkpoint"])
    gallery = Folder(args["gallery"]).uri  # absolute: replicas may run in another directory
    if open_if_published(gallery, digest) is None:
        log.warning("%s: no gallery is published yet; searches answer 503 until one is", gallery)
    return _deployments(settings, checkpoint, digest, gallery)


def _deployments(settings: Settings, checkpoint: str, digest: str, gallery: str) -> Application:
    sketch = serve.deployment(SketchReplica, **settings.sketch.options)
    text = serve.deployment(TextReplica, **settings.text.options)
    fusion = serve.deployment(FusionReplica, **settings.fusion.options)
    ingress = serve.deployment(Ingress, **settings.ingress.options)
    return ingress.bind(
        sketch.bind(checkpoint, settings.sketch.batching),
        text.bind(checkpoint, settings.text.batching, settings.text.recent),
        fusion.bind(checkpoint, digest, gallery),
        {"checkpoint": digest, **_described(read_recipe(checkpoint))},
        settings.limits,
        settings.cors.origins,
    )


def _described(recipe: Recipe) -> dict[str, Any]:
    """What /v1/info says of the model."""
    model = recipe.model
    sketch = model.sketch or model.photo
    towers = {"photo": model.photo.model, "sketch": sketch.model, "text": model.text.model}
    sizes = {"photo": model.photo.preprocess.size, "sketch": sketch.preprocess.size}
    return {"recipe": recipe.name, "dim": model.dim, "towers": towers, "pixels": sizes}


def _known(args: dict[str, str]) -> dict[str, str]:
    usage = "serve run serve.app:build checkpoint=URI gallery=URI [config=FILE]"
    for name in ARGUMENTS[:2]:
        if not args.get(name):
            raise InputError(f"{name}: missing; {usage}")
    for name in args:
        if name not in ARGUMENTS:
            raise InputError(f"{name}: no such argument; {usage}")
    return args
