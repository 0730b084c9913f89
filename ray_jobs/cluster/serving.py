"""Checks of what an endpoint needs: CPUs and GPUs for the replicas of its settings, and API keys."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from pydantic import TypeAdapter, ValidationError

from ray_jobs.cluster import placement
from ray_jobs.cluster.checks import CheckWarningError
from ray_jobs.cluster.requirements import Checks, check_gpus
from stbir.config.values import merge
from stbir.errors import InputError
from stbir.storage.folder import read_uri

# The file, not the package: jobs do not import the endpoint.
DEFAULT = Path(__file__).parents[2] / "serve" / "config.yaml"
API_KEYS_FILE_ENV = "STBIR_API_KEYS_FILE"  # of the endpoint
DEPLOYMENTS = ("ingress", "sketch", "text", "fusion")


@dataclass(frozen=True)
class _Actor:
    num_cpus: float = 1
    num_gpus: float = 0


@dataclass(frozen=True)
class _Scaling:
    min_replicas: int = 1
    max_replicas: int = 1


@dataclass(frozen=True)
class _Options:
    """The options of `ray.serve.deployment` that need resources, with its defaults."""

    ray_actor_options: _Actor | None = None
    autoscaling_config: _Scaling | None = None
    num_replicas: int | None = None


@dataclass(frozen=True)
class _Deployment:
    options: _Options


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

    Raises InputError if the file cannot be read, and for the first wrong field.
    """
    settings = yaml.safe_load(DEFAULT.read_bytes())
    try:
        if uri is not None:
            settings = merge(settings, yaml.safe_load(read_uri(uri)))
        deployments = TypeAdapter(dict[str, Any]).validate_python(settings)
        is_one_process = deployments.get("composition") == "one_process"
        named = {name: deployments.get(name) for name in (DEPLOYMENTS[:1] if is_one_process else DEPLOYMENTS)}
        checked = TypeAdapter(dict[str, _Deployment]).validate_python(named)
    except yaml.YAMLError as error:
        raise InputError(f"--config {uri}: not YAML; see serve/config.yaml") from error
    except ValidationError as error:
        detail = error.errors()[0]
        field = ".".join(map(str, detail["loc"])) or "the file"
        raise InputError(f"--config {uri}: {field}: {detail['msg']}; see serve/config.yaml") from error
    return [_replicas(name, deployment.options) for name, deployment in checked.items()]


def total(replicas: Sequence[Replicas]) -> tuple[float, float]:
    """CPUs and GPUs of the smallest number of replicas."""
    return sum(r.cpus * r.minimum for r in replicas), sum(r.gpus * r.minimum for r in replicas)


def _replicas(name: str, options: _Options) -> Replicas:
    actor, number = options.ray_actor_options or _Actor(), options.num_replicas or 1
    scaling = options.autoscaling_config or _Scaling(number, number)
    return Replicas(name, actor.num_cpus, actor.num_gpus, scaling.min_replicas, scaling.max_replicas)


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
