"""The fleet of an endpoint for a number of photos and a rate of searches, and the simulation of a part of it.

Sized by CPU time at a target utilisation, with the settings of `serve/profiles/cluster.yaml`. Searches run on
CPUs, encoders in OpenVINO; texts are not counted.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.simulation.endpoint import Cell, Outcomes, Scaling, Work, simulate_open
from benchmarks.simulation.figures import Values, with_openvino
from serve.settings import Settings, read_settings
from stbir.gallery.index import IndexPlan, plan_index

ROOT = Path(__file__).resolve().parents[2]
GB = 1e9
_HOURS_PER_MONTH = 730


@dataclass(frozen=True)
class Gallery:
    """Sizes in bytes of a gallery; `replica_memory` and `replica_disk` of a fusion replica without shards."""

    vectors: float
    table: float
    index: float
    replica_memory: float
    replica_disk: float
    build_memory: float


@dataclass(frozen=True)
class Fleet:
    """Replicas, nodes and dollars a month of an endpoint. A search asks a replica of each of the `shards`."""

    ingresses: int
    sketch_replicas: int
    fusion_replicas: int
    shards: int
    nodes: int
    dollars_month: float


@cache
def profile() -> Settings:
    """The settings of the endpoint on a cluster."""
    return read_settings(str(ROOT / "serve/profiles/cluster.yaml"))


def with_settings(figures: Values) -> dict[str, float]:
    """The figures and the setting of the profile whose effect on the cost is measured, too."""
    return {**figures, "max_concurrent_groups": profile().ingress.coalescing.max_concurrent_groups}


def gallery_sizes(figures: Values, photos: float) -> Gallery:
    """The sizes of a gallery of so many photos."""
    dim, plan = int(figures["dim"]), plan_index(int(photos)) or IndexPlan(1, 1)
    index, vectors = plan.size_bytes(int(photos), dim), 4.0 * dim * photos
    return Gallery(
        vectors=vectors,
        table=(4 * dim + figures["row_bytes"]) * photos,
        index=index,
        replica_memory=index + figures["memory_per_photo_bytes"] * photos,
        replica_disk=vectors + index,
        build_memory=plan.build_memory_bytes(int(photos), dim),
    )


def fleet(figures: Values, photos: float, rate: float) -> Fleet:
    """The smallest fleet that stays below the target utilisation, with two replicas of each kind at least."""
    size, work, settings = gallery_sizes(figures, photos), cloud_work(figures), profile()
    # Two releases are in memory during a rollout.
    shards = math.ceil(2 * size.replica_memory / figures["node_memory_bytes"])
    search_s = _search_s(figures, photos / shards)
    size_of_group = group_size(figures, search_s)
    sketch_s = Cell.sketch_share * work.encode_item + work.encode_fixed / size_of_group
    call_s = (work.call + work.background) / size_of_group
    ingresses = _replicas(figures, rate * work.ingress, 1)
    sketch = _replicas(figures, rate * sketch_s, _num_cpus(settings.sketch))
    fusion = shards * _replicas(figures, rate * search_s, _num_cpus(settings.fusion))
    cpus = ingresses * _num_cpus(settings.ingress) + sketch * _num_cpus(settings.sketch)
    cpus += fusion * _num_cpus(settings.fusion) + rate * call_s / figures["target_utilization"]
    memory = 2 * size.replica_memory * fusion / shards
    nodes = math.ceil(max(cpus / figures["node_vcpu"], memory / figures["node_memory_bytes"]))
    disk_gb = fusion / shards * size.replica_disk / GB
    hourly = nodes * figures["node_vcpu"] * figures["vcpu_hour"] + figures["head_hour"]
    storage = size.table / GB * figures["storage_gb_month"] + disk_gb * figures["disk_gb_month"]
    return Fleet(ingresses, sketch, fusion, shards, nodes, hourly * _HOURS_PER_MONTH + storage)


def cloud_work(figures: Values) -> Work:
    """The work of a search on vCPUs whose neighbours are busy, encoders in OpenVINO."""
    return with_openvino(figures).scaled(1 / figures["cores_per_vcpu"])


def group_size(figures: Values, search_s: float) -> float:
    """The mean number of searches in a group of an ingress at the target utilisation (Little's law)."""
    work, coalescing = cloud_work(figures), profile().ingress.coalescing
    group_s = work.call + work.encode_fixed + work.encode_item + search_s
    in_progress = figures["target_utilization"] / work.ingress * group_s
    return min(coalescing.max_group_size, max(1.0, in_progress / figures["max_concurrent_groups"]))


def _search_s(figures: Values, photos: float) -> float:
    """Seconds of a vCPU for a search among so many photos."""
    million_s = figures["search_million_ms"] / 1000 / figures["cores_per_vcpu"]
    return float(million_s * (photos / 1e6) ** figures["search_exponent"])


def _replicas(figures: Values, busy_cpus: float, num_cpus: float) -> int:
    return max(2, math.ceil(busy_cpus / (num_cpus * figures["target_utilization"])))


def _num_cpus(part: Any) -> float:
    return float(part.options["ray_actor_options"]["num_cpus"])


def cell(figures: Values, photos: float, rate: float) -> tuple[Cell, float]:
    """The fewest ingresses with one replica of each kind for them, of a fleet, and their share of the rate.

    All CPUs of a replica compute its group, and all shards at once.
    """
    found, settings, coalescing = fleet(figures, photos, rate), profile(), profile().ingress.coalescing
    fusion = found.fusion_replicas / found.shards
    ingresses = math.ceil(found.ingresses / min(found.sketch_replicas, fusion, found.ingresses))
    share, work, sketch_cpus = ingresses / found.ingresses, cloud_work(figures), _num_cpus(settings.sketch)
    return Cell(
        replace(
            work,
            encode_fixed=work.encode_fixed / sketch_cpus,
            encode_item=work.encode_item / sketch_cpus,
            search_fixed=0.0,
            search_item=_search_s(figures, photos / found.shards) / _num_cpus(settings.fusion),
        ),
        ingresses,
        sketch_replicas=max(1, round(share * found.sketch_replicas)),
        fusion_replicas=max(1, round(share * fusion)),
        max_group_size=coalescing.max_group_size,
        max_concurrent_groups=coalescing.max_concurrent_groups,
        max_queued=coalescing.max_queued_searches,
        deadline_s=settings.limits.deadline_s,
    ), rate * share


def simulate_cell(figures: Values, photos: float, rate: float, seconds: float = 10.0) -> Outcomes:
    """A part of a fleet under its share of the rate."""
    return simulate_open(*cell(figures, photos, rate), seconds)


def simulate_burst(figures: Values, photos: float, times: float = 3.0, seconds: float = 150.0) -> Outcomes:
    """One ingress under `times` its share of the rate; Serve starts others, on nodes that are there."""
    rate = figures["target_utilization"] / cloud_work(figures).ingress
    (found, _), options = cell(figures, photos, rate), profile().ingress.options["autoscaling_config"]
    scaling = Scaling(
        options["target_ongoing_requests"],
        options["max_replicas"],
        options["upscale_delay_s"],
        options["downscale_delay_s"],
        figures["replica_start_s"],
    )
    many = replace(found, sketch_replicas=64, fusion_replicas=64)  # only the ingress is short
    return simulate_open(many, times * rate, seconds, scaling)
