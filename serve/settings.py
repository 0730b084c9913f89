"""The settings of the endpoint: `config.yaml` and the user's overrides, validated field by field."""

import math
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stbir.errors import InputError
from stbir.storage.folder import read_uri

DEFAULT = Path(__file__).with_name("config.yaml")
Count = Annotated[int, Field(ge=1)]
Origin = Annotated[str, Field(pattern=r"^https?://[^/*?#@\s]+$")]  # no `*`, which would allow any page
Seconds = Annotated[float, Field(gt=0)]
_STRICT = ConfigDict(extra="forbid")

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


@dataclass(frozen=True, config=_STRICT)
class IngressSettings:
    """The HTTP deployment; `options` are those of `ray.serve.deployment`."""

    options: dict[str, Any]
    coalescing: Coalescing


@dataclass(frozen=True, config=_STRICT)
class EncoderSettings:
    """A deployment that encodes in batches. `text_cache`: number of texts whose vectors are cached."""

    options: dict[str, Any]
    batching: Batching
    text_cache: Annotated[int, Field(ge=0)] = 0


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
    """All settings."""

    limits: Limits
    ingress: IngressSettings
    sketch: EncoderSettings
    text: EncoderSettings
    fusion: FusionSettings
    cors: CorsSettings = CorsSettings()


def read_settings(uri: str | None = None) -> Settings:
    """The default settings, overridden by the YAML file at `uri`, which may hold any part of them.

    Raises InputError that names the file and the first wrong field.
    """
    name = uri or str(DEFAULT)
    try:
        overrides = yaml.safe_load(read_uri(name))
        _refuse_renamed(name, overrides)
        tree = _merge(yaml.safe_load(DEFAULT.read_bytes()), overrides)
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
    return settings


def scales_to_zero(options: dict[str, Any]) -> bool:
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


def _merge(defaults: Any, overrides: Any) -> Any:
    """`overrides`; a mapping also takes the defaults of the keys that it lacks."""
    if not (isinstance(defaults, dict) and isinstance(overrides, dict)):
        return overrides
    return defaults | {name: _merge(defaults.get(name), value) for name, value in overrides.items()}


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
