"""The settings of the endpoint: `config.yaml` and the user's overrides, validated field by field."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from serve.galleries import DEFAULT_GALLERY, GalleryConfig, GalleryName, fusion_deployment
from stbir.config.choices import Backend
from stbir.config.values import merge
from stbir.errors import InputError
from stbir.storage.folder import read_uri

DEFAULT = Path(__file__).with_name("config.yaml")
Count = Annotated[int, Field(ge=1)]
Origin = Annotated[str, Field(pattern=r"^https?://[^/*?#@\s]+$")]  # no `*`, which would allow any page
Seconds = Annotated[float, Field(gt=0)]
_STRICT = ConfigDict(extra="forbid")
MAX_EXPLANATIONS = 2  # that one ingress computes at a time, so that searches wait for few of their encodings

# Names of settings before 0.2: old → new.
RENAMED_SETTINGS = {
    "ingress.together": "ingress.coalescing",
    "ingress.coalescing.most": "ingress.coalescing.max_group_size",
    "ingress.coalescing.lanes": "ingress.coalescing.max_concurrent_groups",
    "ingress.coalescing.places": "ingress.coalescing.max_queued_searches",
    "text.recent": "text.text_cache",
}


@dataclass(frozen=True, config=_STRICT)
class Limits:
    """Limits of one request; `config.yaml` describes each."""

    body_bytes: Count
    sketch_pixels: Count
    strokes: Count
    points: Count
    words: Count
    characters: Count
    k: Count
    conditions: Count
    negatives: Count
    marks: Count
    deadline_s: Seconds
    retry_after_s: Count


@dataclass(frozen=True, config=_STRICT)
class Batching:
    """How an encoder batches requests; the arguments of `ray.serve.batch`."""

    max_batch_size: Count
    batch_wait_timeout_s: Annotated[float, Field(ge=0)]
    max_concurrent_batches: Count


@dataclass(frozen=True, config=_STRICT)
class Coalescing:
    """How queued searches share one call to each deployment (`serve.deployments.coalescing`)."""

    max_group_size: Count
    max_concurrent_groups: Count
    max_queued_searches: Count

    @property
    def max_in_flight(self) -> int:
        """Searches that one ingress admits at a time; it rejects more with 429."""
        return self.max_concurrent_groups * self.max_group_size + self.max_queued_searches

    @property
    def max_groups(self) -> int:
        """Groups that one ingress has in flight at most: a full group is sent at once."""
        return self.max_concurrent_groups + self.max_in_flight // self.max_group_size


@dataclass(frozen=True, config=_STRICT)
class Thumbnails:
    """The queue of thumbnails in one ingress: it admits `max_in_flight` and fetches `max_concurrent`."""

    max_concurrent: Count
    max_in_flight: Count


@dataclass(frozen=True, config=_STRICT)
class IngressSettings:
    """The HTTP deployment; `options` are those of `ray.serve.deployment`."""

    options: dict[str, Any]
    coalescing: Coalescing
    thumbnails: Thumbnails

    @property
    def max_in_flight(self) -> int:
        """The sum of what one ingress admits."""
        return self.coalescing.max_in_flight + self.thumbnails.max_in_flight


@dataclass(frozen=True, config=_STRICT)
class EncoderSettings:
    """A deployment that encodes in batches, by a backend of `stbir.model.backend`.

    `text_cache`: number of texts whose vectors are cached.
    """

    options: dict[str, Any]
    batching: Batching
    text_cache: Annotated[int, Field(ge=0)] = 0
    backend: Backend = "auto"


@dataclass(frozen=True, config=_STRICT)
class CorsSettings:
    """Exact origins whose pages may call the endpoint, as `https://pad.example.org`."""

    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, config=_STRICT)
class FusionSettings:
    """The deployment that holds the gallery. `cache`: a local folder for the data that a search reads."""

    options: dict[str, Any]
    cache: str | None = None


@dataclass(frozen=True, config=_STRICT)
class Settings:
    """All settings. `galleries`: those beside the default one, by name."""

    limits: Limits
    ingress: IngressSettings
    sketch: EncoderSettings
    text: EncoderSettings
    fusion: FusionSettings
    composition: Literal["separate", "one_process"]
    galleries: Mapping[GalleryName, GalleryConfig]
    cors: CorsSettings = CorsSettings()

    @property
    def gallery_names(self) -> tuple[str, ...]:
        """The names of all galleries, the default one first."""
        return (DEFAULT_GALLERY, *self.galleries)

    def required_deployments(self, gallery: str = DEFAULT_GALLERY) -> set[str]:
        """The deployments behind the ingress without which no search of a gallery is answered."""
        if self.composition == "one_process":
            return set()
        sketch, text, fusion = self.sketch.options, self.text.options, self.fusion.options
        parts = {"SketchReplica": sketch, "TextReplica": text, fusion_deployment(gallery): fusion}
        return {name for name, options in parts.items() if not _scales_to_zero(options)}


def read_settings(uri: str | None = None) -> Settings:
    """The default settings, overridden by the YAML file at `uri`, which may hold any part of them.

    Raises InputError that names the file and the first wrong field.
    """
    name = uri or str(DEFAULT)
    try:
        overrides = yaml.safe_load(read_uri(name))
        _refuse_renamed(name, overrides)
        tree = merge(yaml.safe_load(DEFAULT.read_bytes()), overrides)
        settings = TypeAdapter(Settings).validate_python(tree)
    except yaml.YAMLError as error:
        raise InputError(
            f"{name}: not YAML ({' '.join(str(error).split())}); see serve/config.yaml"
        ) from error
    except ValidationError as error:
        detail = error.errors()[0]
        field = ".".join(str(part) for part in detail["loc"]) or "the file"
        raise InputError(f"{name}: {field}: {detail['msg']}; see serve/config.yaml") from error
    for field in ("sketch", "text"):
        _check_full_batch(name, field, getattr(settings, field), settings.ingress.coalescing.max_group_size)
    _check_queues(name, settings)
    for field in ("ingress", "sketch", "text", "fusion"):
        _check_replicas(f"{name}: {field}.options", getattr(settings, field).options)
    return settings


def _scales_to_zero(options: dict[str, Any]) -> bool:
    """Whether a deployment with these options may have no replica."""
    return not options.get("autoscaling_config", {}).get("min_replicas", 1)


def _refuse_renamed(name: str, node: Any, path: str = "") -> None:
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        field = f"{path}.{key}".lstrip(".")
        if field in RENAMED_SETTINGS:
            raise InputError(f"{name}: {field}: renamed; use {RENAMED_SETTINGS[field]}")
        _refuse_renamed(name, value, field)


def _check_full_batch(name: str, field: str, encoder: EncoderSettings, max_group_size: int) -> None:
    """One request to an encoder carries up to `max_group_size` items."""
    batching = encoder.batching
    needed = math.ceil(batching.max_batch_size * batching.max_concurrent_batches / max_group_size)
    if encoder.options.get("max_ongoing_requests", 0) < needed:
        raise InputError(
            f"{name}: {field}.options.max_ongoing_requests: must be at least {needed}"
            " (max_batch_size x max_concurrent_batches / ingress.coalescing.max_group_size),"
            " or batches never fill"
        )


def _check_queues(name: str, settings: Settings) -> None:
    """Admission control is the only limit: the queues behind it hold all that one ingress admits."""
    ingress = settings.ingress
    _check_minimum(
        f"{name}: ingress.options.max_ongoing_requests",
        ingress.options.get("max_ongoing_requests", 0),
        ingress.max_in_flight + 1,
        "what ingress.coalescing and ingress.thumbnails admit, and a health check",
    )
    # Serve counts the queue of a deployment by caller, so for one ingress. All galleries share the encoders;
    # each has groups and fusion of its own.
    num_groups = ingress.coalescing.max_groups + MAX_EXPLANATIONS
    of_encoder = num_groups + ingress.coalescing.max_concurrent_groups * len(settings.galleries)
    needed = {"sketch": of_encoder, "text": of_encoder}
    needed["fusion"] = num_groups + ingress.thumbnails.max_concurrent
    for part, count in needed.items():
        max_queued = getattr(settings, part).options.get("max_queued_requests", -1)
        if max_queued != -1:
            option = f"{name}: {part}.options.max_queued_requests"
            _check_minimum(option, max_queued, count, "the requests that one ingress sends at a time")


def _check_minimum(field: str, value: int, needed: int, reason: str) -> None:
    if value < needed:
        raise InputError(f"{field}: must be at least {needed} ({reason})")


def _check_replicas(field: str, options: dict[str, Any]) -> None:
    """A limit per node above the limit of all nodes is a mistake in one of the two."""
    max_replicas = (options.get("autoscaling_config") or {}).get(
        "max_replicas", options.get("num_replicas", 1)
    )
    per_node = options.get("max_replicas_per_node")
    if per_node is not None and per_node > max_replicas:
        raise InputError(
            f"{field}.max_replicas_per_node: {per_node} exceeds max_replicas, {max_replicas};"
            " lower it or raise autoscaling_config.max_replicas"
        )
