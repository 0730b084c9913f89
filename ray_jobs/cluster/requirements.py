"""What each kind of work needs to be there: artifacts, storage, room, versions, accelerators, a token."""

import functools
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.cluster import placement
from ray_jobs.cluster.auth_check import dashboard, token_asked
from ray_jobs.cluster.checks import Check, DoubtError
from stbir.config import Recipe
from stbir.errors import InputError
from stbir.storage.access_check import probe
from stbir.storage.folder import Folder

log = logging.getLogger(__name__)
Checks = Iterator[tuple[str, Check]]
GIB = 2**30
LEAST_DISK = 10 * GIB  # Ray spills what its object store cannot hold; at 95 % it gives up
LOOK_S = 60.0  # to start a process beside a GPU and load torch in it
MOST_SKEW_S = 60.0  # S3 refuses signatures from 15 minutes on; logs and deadlines are wrong long before
KEYS = "STBIR_API_KEYS_FILE"  # as the endpoint reads it
PACKAGES = ("ray", "torch", "torchvision", "open_clip_torch", "timm", "pylance", "pyarrow", "numpy")


def place(folder: Folder) -> Checks:
    """The storage that results go to."""
    yield f"storage {folder.uri}", lambda: _storage(folder)


def cluster() -> Checks:
    """What holds for any work on a cluster; nothing where the command started Ray for itself."""
    if "RAY_ADDRESS" not in os.environ:
        yield "disk", lambda: _disk([facts()])
        return
    nodes = _of_each_node()
    yield "token", lambda: token_asked(dashboard())
    yield "versions", lambda: _versions(facts(), nodes)
    yield "clock", lambda: _clocks(nodes)
    yield "disk", lambda: _disk(nodes)


def training(recipe: Recipe, workers: int, decoders: int, gpu: str, step_bytes: int, steps: int) -> Checks:
    """CPUs, GPUs, weights, and memory for `steps` decoded steps of `step_bytes` each."""
    yield "CPUs", lambda: _cpus(workers, decoders)
    yield "GPUs", lambda: _gpus(workers, gpu)
    yield "object store", lambda: _object_store(step_bytes, steps)
    for modality in ("photo", "sketch", "text"):
        tower = getattr(recipe.model, modality)
        if tower is not None and tower.weights is not None:
            yield f"{modality} weights", functools.partial(_weights, tower.weights)


def embedding(towers: int, gpu: str) -> Checks:
    """What so many encoders need of CPUs, beside one that decodes, and of GPUs."""
    yield "CPUs", lambda: _cpus(math.ceil(towers * placement.TOWER_CPUS), 1)
    yield "GPUs", lambda: _gpus(towers, gpu)


def serving(towers: int, gpu: str) -> Checks:
    """The GPUs of so many towers, and whom an endpoint answers that starts with this environment."""
    yield "GPUs", lambda: _gpus(towers, gpu)
    yield "keys", _keys


def facts() -> dict[str, Any]:
    """What a node says of itself; runs on each."""
    return {
        "node": ray.util.get_node_ip_address(),
        "versions": {name: _version(name) for name in PACKAGES},
        "time": time.time(),
        "disk": shutil.disk_usage("/tmp").free,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _alive() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def _of_each_node() -> list[dict[str, Any]]:
    answers = [(node, _on(node)) for node in _alive()]
    return [told for node, answer in answers if (told := _told(node, answer))]


def _told(node: str, answer: ray.ObjectRef[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = ray.get(answer)
        return told
    except TaskUnschedulableError:  # spot machines come and go: what is left decides
        log.warning("node %s has gone while it was looked at", node)
        return None


def _on(node: str) -> ray.ObjectRef[dict[str, Any]]:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0)(facts).options(scheduling_strategy=there).remote()


def _storage(folder: Folder) -> str:
    ahead = probe(folder)
    if abs(ahead) > MOST_SKEW_S:
        raise InputError(f"{folder.uri}: its clock differs by {ahead:.0f} s; set this machine's clock (NTP)")
    return "written, read, listed, deleted"


def _versions(here: dict[str, Any], nodes: Sequence[dict[str, Any]]) -> str:
    for node in nodes:
        for name, there in node["versions"].items():
            if there != (ours := here["versions"][name]):
                raise InputError(
                    f"{name}: node {node['node']} has {there}, this one {ours};"
                    " set all nodes up from one requirements.lock"
                )
    return ", ".join(f"{name} {found}" for name, found in here["versions"].items())


def _clocks(nodes: Sequence[dict[str, Any]]) -> str:
    # They were asked at once; what the asking took counts too, and is far less than what matters.
    skew = max(node["time"] for node in nodes) - min(node["time"] for node in nodes)
    if skew > MOST_SKEW_S:
        raise InputError(f"the nodes' clocks differ by {skew:.0f} s; run an NTP client on each")
    return f"{len(nodes)} nodes within {max(skew, 1):.0f} s"


def _disk(nodes: Sequence[dict[str, Any]]) -> str:
    least = min(nodes, key=lambda node: node["disk"])
    free = f"{least['disk'] / GIB:.0f} GiB"
    if least["disk"] < LEAST_DISK:
        raise DoubtError(
            f"/tmp of node {least['node']} has {free} free; leave {LEAST_DISK // GIB} for what Ray spills"
        )
    return f"{free} free at least"


def _cpus(workers: int, decoders: int) -> str:
    cpus, needed = int(ray.cluster_resources().get("CPU", 0)), workers + decoders
    if cpus < needed:
        raise InputError(
            f"--workers: {workers} and the decoding need {needed} CPUs, the cluster has {cpus};"
            " start more nodes, or give fewer workers"
        )
    there = placement.amount("CPU", "data")
    if there < decoders:
        label = f"{placement.ROLE}=data"
        raise InputError(
            f"decoding needs {decoders} CPUs on nodes with the label {label}, there are {there};"
            f" start more such nodes, or larger ones (ray start --labels={label})"
        )
    return f"{cpus}, {min(there, cpus - workers)} of them left for decoding"


def uses_gpus(workers: int, gpu: str) -> bool:
    """Whether so many workers have GPUs: `yes`, `no`, or `auto`, where there are enough of them now."""
    return gpu == "yes" or (gpu == "auto" and placement.amount("GPU", "accelerator") >= workers)


def _gpus(workers: int, gpu: str) -> str:
    gpus = placement.amount("GPU", "accelerator")
    if gpu == "yes" and gpus < workers:
        raise InputError(
            f"--gpu: {workers} workers need {workers} GPUs, the cluster has {gpus};"
            " start nodes with GPUs, or give fewer workers"
        )
    if not uses_gpus(workers, gpu):
        return "none: CPUs do the work"
    task = ray.remote(num_gpus=1, num_cpus=0)(_seen_by_torch)
    return _seen([task.remote() for _ in range(workers)])


def _seen(looks: list[ray.ObjectRef[str]]) -> str:
    """What the tasks on GPUs say. Those that other jobs hold are there, and are not waited for."""
    done, waiting = ray.wait(looks, num_returns=len(looks), timeout=LOOK_S)
    for look in waiting:
        ray.cancel(look)
    said = ", ".join(sorted(set(ray.get(done))))
    if waiting:
        busy = f"{len(waiting)} of {len(looks)} are in use now"
        raise DoubtError(f"{said or 'unseen'}: {busy}; the job will wait for what holds them to end")
    return said


def _seen_by_torch() -> str:
    import torch  # many seconds: only here

    if not torch.cuda.is_available():
        built = f"torch {torch.__version__} (built for CUDA {torch.version.cuda})"
        raise InputError(
            f"Ray gives a GPU that {built} cannot use; update the driver, or use the lock's torch"
        )
    return f"{torch.cuda.get_device_name()} under CUDA {torch.version.cuda}"


def _keys() -> str:
    path = os.environ.get(KEYS)
    if not path:
        raise DoubtError(
            f"without {KEYS} the endpoint answers this machine only;"
            " name a file of keys for others (python -m serve.http.api_keys NAME)"
        )
    try:
        return f"{len(Path(path).read_bytes().splitlines())} lines in {path}"
    except OSError as error:
        raise InputError(f"{KEYS}: {error}; make it with python -m serve.http.api_keys NAME") from error


def _object_store(step_bytes: int, steps: int) -> str:
    there = int(ray.cluster_resources().get("object_store_memory", 0))
    needed = steps * step_bytes
    if there < needed:
        raise DoubtError(
            f"{there / GIB:.1f} GiB, and {steps} decoded steps take {needed / GIB:.1f};"
            " start nodes with more --object-store-memory, or --set batch_size=N"
        )
    return f"{there / GIB:.1f} GiB, room for {there // step_bytes} decoded steps"


def _weights(weights: str) -> str:
    from stbir.model.weights import is_tag  # loads torch: only where a recipe has weights

    if is_tag(weights):
        raise DoubtError(
            f"{weights!r} is loaded from the hub when training begins; give a path or URI without a way there"
        )
    folder, _, name = weights.rpartition("/")
    if not Folder(folder or ".").exists(name):
        raise InputError(f"no file {weights}; give a tag, a path or a URI")
    return weights
