"""The wiring of the endpoint.

              ┌── sketch ──→ SketchReplica ──┐
HTTP → Ingress                               FusionReplica → hits → Ingress → HTTP
              └── text ────→ TextReplica ────┘  (one a gallery)
"""

import getpass
import logging
import os
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from serve import environment
from serve.deployments.batching import EncoderLoader
from serve.deployments.ingress import Ingress
from serve.deployments.local_handle import LocalHandle
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.galleries import fusion_deployment
from serve.messages import Release
from serve.rollout.records import GcsStore, ReleaseRecords
from serve.rollout.release import resolve
from serve.settings import EncoderSettings, Settings, read_settings
from stbir.errors import InputError

ENCODERS = "encoders"  # folder of exported encoders in the cache
log = logging.getLogger(__name__)


def build_application(args: dict[str, str]) -> Application:
    """The application. Raises InputError for a missing checkpoint or a gallery of another checkpoint."""
    settings = read_settings(args.get("config"))
    default = resolve({"checkpoint": args["checkpoint"], "gallery": args["gallery"]})
    galleries = {
        name: resolve({"checkpoint": default.checkpoint, **asdict(config)})
        for name, config in settings.galleries.items()
    }
    for release in (default, *galleries.values()):
        if release.version is None:
            log.warning("%s: no gallery is published yet; searches answer 503 until one is", release.gallery)
    return _bind(settings, _user_config(default, galleries))


def _user_config(default: Release, galleries: dict[str, Release]) -> dict[str, Any]:
    """The `user_config` of all deployments; `serve.galleries.release_config` reads it."""
    fields = {"checkpoint": default.checkpoint, "gallery": default.gallery, "version": default.version}
    others = {name: {"gallery": each.gallery, "version": each.version} for name, each in galleries.items()}
    return {**fields, "galleries": others} if others else fields


def _bind(settings: Settings, user_config: dict[str, Any]) -> Application:
    def deployment(cls: type, options: dict[str, Any]) -> Any:
        try:
            return serve.deployment(cls, user_config=user_config, **options)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"config: options of {cls.__name__}: {reason}; see serve/config.yaml") from error

    def part(cls: type, options: dict[str, Any], *args: Any) -> Any:
        if settings.composition == "one_process":
            return LocalHandle(cls, *args)
        return deployment(cls, environment.with_low_priority(options)).bind(*args)

    def loader(encoder: EncoderSettings) -> EncoderLoader:
        cache = settings.fusion.cache
        backend = environment.backend_in_force(encoder.backend)
        return EncoderLoader(backend, Path(cache) / ENCODERS if cache else None)

    def fusion(gallery: str) -> Any:
        options = {**settings.fusion.options, "name": fusion_deployment(gallery)}
        return part(FusionReplica, options, records.of_gallery(gallery), settings.fusion.cache)

    sketch, text, records = settings.sketch, settings.text, ReleaseRecords(GcsStore(), _built_by())
    return deployment(Ingress, settings.ingress.options).bind(
        part(SketchReplica, sketch.options, sketch.batching, records, loader(sketch)),
        part(TextReplica, text.options, text.batching, records, text.text_cache, loader(text)),
        {gallery: fusion(gallery) for gallery in settings.gallery_names},
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
