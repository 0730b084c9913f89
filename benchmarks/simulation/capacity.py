"""Time and cost of jobs on the nodes of cluster.yaml, limits of the shipped settings, sensitivity of cost."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from benchmarks.simulation.figures import Values
from benchmarks.simulation.fleet import GB, ROOT, fleet, gallery_sizes, profile
from benchmarks.simulation.jobs import Embedding, Training


@dataclass(frozen=True)
class Limit:
    """What a fleet needs of something over what there is (`ratio`; above 1 it breaks), and what raises it."""

    name: str
    ratio: float
    setting: str


@cache
def cpu_node() -> Mapping[str, Any]:
    """The CPU node type of cluster.yaml."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]
    node: dict[str, Any] = content["cpu"]
    return node


def num_nodes() -> int:
    """The most CPU nodes that cluster.yaml starts."""
    return int(cpu_node()["max_workers"])


def worker_cores(figures: Values) -> float:
    """Cores of the CPU nodes of cluster.yaml."""
    return num_nodes() * figures["node_vcpu"] * figures["cores_per_vcpu"]


def embedding(figures: Values) -> Embedding:
    """An embedding job on the CPU nodes of cluster.yaml, cores divided so that no stage waits for another."""
    decode, encode, write = (figures[f"photo_{stage}_ms"] / 1000 for stage in ("decode", "encode", "write"))
    cores, encode = worker_cores(figures), encode + write  # what a photo costs beside both grows with them
    decoders = max(1, round(cores * decode / (decode + encode)))
    return Embedding(decode, encode, 0.0, decoders, max(1, round(cores) - decoders))


def training(figures: Values, workers: int) -> Training:
    """Training on GPU nodes of cluster.yaml, decoding on its CPU nodes."""
    return Training(
        batch=int(figures["gpu_batch"]),
        compute=1 / figures["gpu_samples_per_s"],
        decode=figures["sample_decode_ms"] / 1000,
        decoders=round(worker_cores(figures)),
        workers=workers,
        exchange_bytes=figures["gradient_bytes"],
        bandwidth=figures["exchange_bandwidth_bytes"],
    )


def embedding_hours(figures: Values, photos: float) -> float:
    """Hours to embed on the CPU nodes of cluster.yaml: the slower of computation and the network."""
    read_s = photos * figures["photo_bytes"] / num_nodes() / figures["node_bandwidth_bytes"]
    computed_s = photos / embedding(figures).photos_per_s()
    return (figures["job_start_s"] + max(computed_s, read_s)) / 3600


def index_hours(figures: Values, photos: float) -> float:
    """Hours to build the index on the same nodes: time grows as N^1.5, since partitions grow as N^0.5."""
    million_s = figures["build_million_s"] * figures["benchmark_cores"] / worker_cores(figures)
    return float(million_s * (photos / 1e6) ** 1.5 / 3600)


def job_dollars(figures: Values, hours: float) -> float:
    """The CPU nodes of cluster.yaml and its head for so long."""
    vcpus = num_nodes() * figures["node_vcpu"]
    return hours * (vcpus * figures["vcpu_hour"] + figures["head_hour"])


def training_dollars(figures: Values, workers: int, hours: float) -> float:
    """A GPU node a worker, and the CPU nodes and the head."""
    return job_dollars(figures, hours) + hours * workers * figures["gpu_node_hour"]


def limits(figures: Values, photos: float, rate: float) -> list[Limit]:
    """Limits of the shipped settings, the tightest first."""
    return sorted(
        (*_photo_limits(figures, photos), *_rate_limits(figures, photos, rate)), key=lambda each: -each.ratio
    )


def largest_rate(figures: Values, photos: float) -> float:
    """The searches per second that the shipped settings hold, however large the gallery is."""
    low, high = 1.0, 1e6
    while high / low > 1.01:
        rate = math.sqrt(low * high)
        fits = all(limit.ratio <= 1 for limit in _rate_limits(figures, photos, rate))
        low, high = (rate, high) if fits else (low, rate)
    return low


def _photo_limits(figures: Values, photos: float) -> Iterator[Limit]:
    size, memory = gallery_sizes(figures, photos), figures["node_memory_bytes"]
    [disk] = cpu_node()["node_config"]["BlockDeviceMappings"]
    volume = disk["Ebs"]["VolumeSize"] * GB
    driver = figures["driver_base_bytes"] + figures["driver_per_photo_bytes"] * photos
    scratch = figures["driver_disk_per_photo_bytes"] * photos
    yield Limit("disk of a replica", size.replica_disk / volume, "`VolumeSize` in cluster.yaml")
    yield Limit(
        "memory of the embedding driver",
        driver / figures["head_memory_bytes"],
        "run the job on a worker node",
    )
    yield Limit("scratch disk of the embedding driver", scratch / volume, "`TMPDIR` on a larger disk")
    yield Limit(
        "memory of a replica, two releases", 2 * size.replica_memory / memory, "memory of the node, or shards"
    )
    yield Limit("memory of the index build", size.build_memory / memory, "memory of the node that builds")


def _rate_limits(figures: Values, photos: float, rate: float) -> Iterator[Limit]:
    found, settings = fleet(figures, photos, rate), profile()
    counts = {"ingress": found.ingresses, "sketch": found.sketch_replicas, "fusion": found.fusion_replicas}
    for part, count in counts.items():
        most = getattr(settings, part).options["autoscaling_config"]["max_replicas"]
        yield Limit(
            f"{part} replicas", count / most, f"`{part}` `max_replicas` in serve/profiles/cluster.yaml"
        )
    yield Limit("nodes", found.nodes / num_nodes(), "`max_workers` in cluster.yaml")


def sensitivity(figures: Values, photos: float, rate: float) -> dict[str, tuple[float, float]]:
    """Dollars a month at half and at one and a half times each figure, relative; widest first."""

    def dollars(name: str, share: float) -> float:
        return fleet({**figures, name: share * figures[name]}, photos, rate).dollars_month

    base = fleet(figures, photos, rate).dollars_month
    changes = {name: (dollars(name, 0.5) / base, dollars(name, 1.5) / base) for name in figures}
    return dict(sorted(changes.items(), key=lambda each: -abs(each[1][1] - each[1][0])))
