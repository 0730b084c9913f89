"""The settings of the endpoint: `config.yaml`, or what another file says instead, checked field by field."""

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
Origin = Annotated[str, Field(pattern=r"^https?://[^/*?#@\s]+$")]  # `*` would be everybody
Seconds = Annotated[float, Field(gt=0)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Limits:
    """The most that one request may ask for; `config.yaml` says what each counts."""

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
    """How a tower gathers requests; the arguments of `ray.serve.batch`."""

    max_batch_size: Count
    batch_wait_timeout_s: Annotated[float, Field(ge=0)]
    max_concurrent_batches: Count


@dataclass(frozen=True, config=_STRICT)
class Gathering:
    """How searches that wait go on together (`serve.deployments.coalescing`): at most so many at a time,
    so many groups
    under way before others wait for one, and so many places to wait in."""

    most: Count
    lanes: Count
    places: Count

    @property
    def searches(self) -> int:
        """How many may be inside one ingress: whoever comes then is turned away at its door."""
        return self.lanes * self.most + self.places


@dataclass(frozen=True, config=_STRICT)
class IngressService:
    """The deployment that listens: `options` are those of `ray.serve.deployment`."""

    options: dict[str, Any]
    together: Gathering


@dataclass(frozen=True, config=_STRICT)
class TowerService:
    """A deployment that computes in batches."""

    options: dict[str, Any]
    batching: Batching
    recent: Annotated[int, Field(ge=0)] = 0  # answers kept, of texts


@dataclass(frozen=True, config=_STRICT)
class Cors:
    """Whose pages a browser lets ask: exact origins, as `https://pad.example.org`."""

    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, config=_STRICT)
class SearchService:
    """A deployment that holds the gallery. `cache`: a folder of its machine for what a search reads."""

    options: dict[str, Any]
    cache: str | None = None


@dataclass(frozen=True, config=_STRICT)
class Settings:
    """The whole file."""

    limits: Limits
    ingress: IngressService
    sketch: TowerService
    text: TowerService
    fusion: SearchService
    cors: Cors = Cors()


def read_settings(uri: str | None = None) -> Settings:
    """The settings shipped, with what a YAML file at `uri` says instead: it need hold no more than that.

    Raises InputError, naming file and field, for what cannot be used.
    """
    name = uri or str(DEFAULT)
    try:
        tree = _merged(yaml.safe_load(DEFAULT.read_bytes()), yaml.safe_load(read_uri(name)))
        settings = TypeAdapter(Settings).validate_python(tree)
    except yaml.YAMLError as error:
        raise InputError(
            f"{name}: not YAML ({' '.join(str(error).split())}); see serve/config.yaml"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{name}: {where}: {first['msg']}; see serve/config.yaml") from error
    for field in ("sketch", "text"):
        _batches_fill(name, field, getattr(settings, field), settings.ingress.together.most)
    return settings


def always_there(options: dict[str, Any]) -> bool:
    """Whether a deployment with these options keeps a replica, and is not scaled to zero."""
    return bool(options.get("autoscaling_config", {}).get("min_replicas", 1))


def _merged(shipped: Any, chosen: Any) -> Any:
    """`chosen`, and where it is a mapping, what it does not say as shipped."""
    if not (isinstance(shipped, dict) and isinstance(chosen, dict)):
        return chosen
    return shipped | {name: _merged(shipped.get(name), value) for name, value in chosen.items()}


def _batches_fill(name: str, field: str, tower: TowerService, most: int) -> None:
    """A request to a tower is a group of up to `most`."""
    needed = math.ceil(tower.batching.max_batch_size * tower.batching.max_concurrent_batches / most)
    if tower.options.get("max_ongoing_requests", 0) < needed:
        raise InputError(
            f"{name}: {field}.options.max_ongoing_requests: must be at least {needed}"
            " (max_batch_size x max_concurrent_batches / ingress.together.most), or no batch ever fills"
        )
