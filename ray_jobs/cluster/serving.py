"""Checks of what an endpoint needs: CPUs and GPUs for the replicas of its settings, and API keys."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from ray_jobs.cluster import placement
from ray_jobs.cluster.checks import CheckWarningError
from ray_jobs.cluster.requirements import Checks, check_gpus
from stbir.errors import InputError
from stbir.storage.folder import read_uri

# The file, not the package: jobs do not import the endpoint.
DEFAULT = Path(__file__).parents[2] / "serve" / "config.yaml"
API_KEYS_FILE_ENV = "STBIR_API_KEYS_FILE"  # of the endpoint
DEPLOYMENTS = ("ingress", "sketch", "text", "fusion")


@dataclass(frozen=True)
class Replicas:
    """The replicas of one deployment: what each requests, and how many there are at least and at most."""

    deployment: str
    cpus: float
    gpus: float
    minimum: int
    maximum: int


def read_replicas(uri: str | None) -> list[Replicas]:
    """The replicas of each deployment. `uri`: overrides of the settings, as `config=` of the endpoint.

    Raises InputError if the file cannot be read.
    """
    settings = yaml.safe_load(DEFAULT.read_bytes())
    if uri is not None:
        try:
            settings = _merge(settings, yaml.safe_load(read_uri(uri)))
        except yaml.YAMLError as error:
            raise InputError(f"--config {uri}: not YAML; see serve/config.yaml") from error
    return [_replicas(name, settings[name]["options"]) for name in DEPLOYMENTS]


def total(replicas: Sequence[Replicas]) -> tuple[float, float]:
    """CPUs and GPUs of the smallest number of replicas."""
    return sum(r.cpus * r.minimum for r in replicas), sum(r.gpus * r.minimum for r in replicas)


def _replicas(name: str, options: dict[str, Any]) -> Replicas:
    actor, scaling = options["ray_actor_options"], options["autoscaling_config"]
    numbers = scaling.get("min_replicas", 1), scaling.get("max_replicas", 1)
    return Replicas(name, actor.get("num_cpus", 1), actor.get("num_gpus", 0), *numbers)


def _merge(defaults: Any, overrides: Any) -> Any:
    """As the endpoint merges its settings (`serve.settings`)."""
    if not (isinstance(defaults, dict) and isinstance(overrides, dict)):
        return overrides
    return defaults | {name: _merge(defaults.get(name), value) for name, value in overrides.items()}


def serving_checks(replicas: Sequence[Replicas]) -> Checks:
    """Check CPUs and GPUs for the smallest number of replicas, and the endpoint's API keys."""
    _, gpus = total(replicas)
    yield "CPUs", lambda: _replica_cpus(replicas)
    yield "GPUs", lambda: check_gpus("the replicas", math.ceil(gpus), "yes" if gpus else "no")
    yield "keys", _api_keys


def _replica_cpus(replicas: Sequence[Replicas]) -> str:
    needed, cpus = total(replicas)[0], int(ray.cluster_resources().get("CPU", 0))
    parts = " + ".join(f"{each.minimum} x {each.cpus:g} {each.deployment}" for each in replicas)
    if cpus < needed:
        raise InputError(
            f"the replicas need {needed:g} CPUs ({parts}), the cluster has {cpus};"
            " start more nodes, or give --config a profile that requests fewer"
        )
    largest = max(replicas, key=lambda each: each.cpus)
    if (available := placement.largest_node("CPU")) < largest.cpus:
        raise InputError(
            f"a replica of {largest.deployment} needs {largest.cpus:g} CPUs on one node, the largest has"
            f" {available}; start a larger node, or give --config a profile that requests fewer"
        )
    most = sum(each.cpus * each.maximum for each in replicas)
    return f"{cpus}, of which the replicas need {needed:g} to {most:g}"


def _api_keys() -> str:
    path = os.environ.get(API_KEYS_FILE_ENV)
    if not path:
        raise CheckWarningError(
            f"without {API_KEYS_FILE_ENV} the endpoint accepts requests from this machine only;"
            " set it to a file of API keys (python -m serve.http.api_keys NAME)"
        )
    try:
        return f"{len(Path(path).read_bytes().splitlines())} lines in {path}"
    except OSError as error:
        raise InputError(
            f"{API_KEYS_FILE_ENV}: {error}; make it with python -m serve.http.api_keys NAME"
        ) from error
