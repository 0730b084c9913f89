"""Checks of what a job needs: storage, CPUs, GPUs, memory, disk, clocks, package versions, tokens."""

import functools
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import ray
from ray.exceptions import TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.cluster import placement
from ray_jobs.cluster.auth_check import check_token, dashboard_url
from ray_jobs.cluster.checks import Check, CheckWarningError
from stbir.config import MODALITIES, Modality, ModelConfig, Recipe
from stbir.data.photo_index import PhotoIndex
from stbir.errors import InputError
from stbir.storage.access_check import check_access
from stbir.storage.folder import Folder
from stbir.training.sample_checks import data_problem, sample_problems

log = logging.getLogger(__name__)
Checks = Iterator[tuple[str, Check]]
GIB = 2**30
MIN_DISK_BYTES = 10 * GIB  # Ray spills objects to disk, and fails when it is 95 % full
GPU_CHECK_TIMEOUT_S = 60.0  # to start a process with a GPU and import torch in it
# Deadlines and locks use monotonic clocks, so any skew is safe for them. S3 rejects signatures that are 15
# minutes off, and the times in logs of several nodes should compare.
MAX_CLOCK_SKEW_S = 60.0
PACKAGES = ("ray", "torch", "torchvision", "open_clip_torch", "timm", "pylance", "pyarrow", "numpy")


def storage(folder: Folder) -> Checks:
    """Check access to the folder of the results."""
    yield f"storage {folder.uri}", lambda: _storage(folder)


def cluster() -> Checks:
    """Check token, package versions, clocks and disks; only the disk of a Ray that this command started."""
    if "RAY_ADDRESS" not in os.environ:
        yield "disk", lambda: _disk([node_info()])
        return
    nodes = _node_infos()
    yield "token", lambda: check_token(dashboard_url())
    yield "versions", lambda: _versions(node_info(), nodes)
    yield "clock", lambda: _clocks(nodes)
    yield "disk", lambda: _disk(nodes)


def training(workers: int, decoders: int, gpu: str, step_bytes: int, steps: int) -> Checks:
    """Check CPUs, GPUs, and memory for `steps` decoded steps of `step_bytes` each."""
    yield "CPUs", lambda: _cpus(f"{workers} workers", workers, decoders)
    yield "GPUs", lambda: check_gpus("--gpu: the workers", workers, gpu)
    yield "object store", lambda: _object_store(step_bytes, steps)


def weights(model: ModelConfig) -> Checks:
    """Check that each encoder loads its pretrained weights; a tag is not downloaded."""
    for modality in MODALITIES:
        encoder = getattr(model, modality)
        if encoder is not None and encoder.weights is not None:
            yield f"{modality} weights", functools.partial(_weights, model, modality)


def samples(photos: PhotoIndex, recipe: Recipe) -> str:
    """Raises CheckWarningError if a stage has no photos to distinguish, or a single class."""
    if problems := sample_problems(photos, recipe):
        raise CheckWarningError("; ".join(problems))
    return f"{len(photos)} photos"


def enough_data(photos: PhotoIndex, recipe: Recipe, is_initialized: bool) -> str:
    """Raises CheckWarningError if a run has too few photos or steps. `is_initialized`: with --init-from."""
    if problem := data_problem(photos, recipe, is_initialized):
        raise CheckWarningError(problem)
    return f"{len(photos)} photos"


def embedding(num_encoders: int, gpu: str) -> Checks:
    """Check CPUs for the encoders and one decode task, and GPUs for the encoders."""
    cpus = math.ceil(num_encoders * placement.ENCODER_CPUS)
    yield "CPUs", lambda: _cpus(f"{num_encoders} encoders", cpus, 1)
    yield "GPUs", lambda: check_gpus("--gpu: the encoders", num_encoders, gpu)


def node_info() -> dict[str, Any]:
    """Address, package versions, time and free disk of the node that runs this."""
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


def _alive_node_ids() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def _node_infos() -> list[dict[str, Any]]:
    """`node_info` of all nodes, without those that leave meanwhile, as spot instances do."""
    tasks = [(node_id, _submit_node_info(node_id)) for node_id in _alive_node_ids()]
    infos = []
    for node_id, task in tasks:
        try:
            infos.append(ray.get(task))
        except TaskUnschedulableError:
            log.warning("node %s left the cluster during the checks", node_id)
    return infos


def _submit_node_info(node_id: str) -> ray.ObjectRef[dict[str, Any]]:
    on_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0)(node_info).options(scheduling_strategy=on_node).remote()


def _storage(folder: Folder) -> str:
    skew = check_access(folder)
    if abs(skew) > MAX_CLOCK_SKEW_S:
        raise InputError(f"{folder.uri}: its clock differs by {skew:.0f} s; set this machine's clock (NTP)")
    return "written, read, listed, deleted"


def _versions(local: dict[str, Any], nodes: Sequence[dict[str, Any]]) -> str:
    for node in nodes:
        for name, remote in node["versions"].items():
            if remote != (here := local["versions"][name]):
                raise InputError(
                    f"{name}: node {node['node']} has {remote}, this one {here};"
                    " install all nodes from one requirements.lock"
                )
    return ", ".join(f"{name} {installed}" for name, installed in local["versions"].items())


def _clocks(nodes: Sequence[dict[str, Any]]) -> str:
    # The times are read in parallel; the delay between the reads is small against the limit.
    skew = max(node["time"] for node in nodes) - min(node["time"] for node in nodes)
    if skew > MAX_CLOCK_SKEW_S:
        raise InputError(f"the nodes' clocks differ by {skew:.0f} s; run an NTP client on each")
    return f"{len(nodes)} nodes within {max(skew, 1):.0f} s"


def _disk(nodes: Sequence[dict[str, Any]]) -> str:
    node = min(nodes, key=lambda node: node["disk"])
    free = f"{node['disk'] / GIB:.0f} GiB"
    if node["disk"] < MIN_DISK_BYTES:
        raise CheckWarningError(
            f"/tmp of node {node['node']} has {free} free;"
            f" free at least {MIN_DISK_BYTES // GIB} GiB for Ray to spill objects"
        )
    return f"at least {free} free"


def _cpus(actors: str, actor_cpus: int, decoders: int) -> str:
    """`actors`: number and name of those that `--workers` requests, which take `actor_cpus` in all."""
    cpus, needed = int(ray.cluster_resources().get("CPU", 0)), actor_cpus + decoders
    if cpus < needed:
        raise InputError(
            f"--workers: {actors} and the decoding need {needed} CPUs, the cluster has {cpus};"
            " start more nodes, or request fewer"
        )
    data_cpus = placement.total_resource("CPU", "data")
    if data_cpus < decoders:
        label = f"{placement.ROLE_LABEL}=data"
        raise InputError(
            f"decoding needs {decoders} CPUs on nodes with the label {label}, the cluster has {data_cpus};"
            f" start more such nodes, or larger ones (ray start --labels={label})"
        )
    return f"{cpus}, of which {min(data_cpus, cpus - actor_cpus)} for decoding"


def uses_gpus(workers: int, gpu: str) -> bool:
    """Whether each worker gets a GPU. `gpu` is yes, no, or auto: if the cluster has enough of them now."""
    return gpu == "yes" or (gpu == "auto" and placement.total_resource("GPU", "accelerator") >= workers)


def check_gpus(actors: str, count: int, gpu: str) -> str:
    """`actors`: the option and the name of those that need `count` GPUs."""
    gpus = placement.total_resource("GPU", "accelerator")
    if gpu == "yes" and gpus < count:
        raise InputError(
            f"{actors} need {count} GPUs, the cluster has {gpus}; start nodes with GPUs, or request fewer"
        )
    if not uses_gpus(count, gpu):
        return "none, the job runs on CPUs"
    task = ray.remote(num_gpus=1, num_cpus=0)(_torch_gpu_name)
    return _gpu_names([task.remote() for _ in range(count)])


def _gpu_names(tasks: list[ray.ObjectRef[str]]) -> str:
    """Collect the results of GPU tasks. Raises CheckWarningError if some do not start: GPUs are in use."""
    finished, pending = ray.wait(tasks, num_returns=len(tasks), timeout=GPU_CHECK_TIMEOUT_S)
    for task in pending:
        ray.cancel(task)
    names = ", ".join(sorted(set(ray.get(finished))))
    if pending:
        busy = f"{len(pending)} of {len(tasks)} GPUs are in use"
        raise CheckWarningError(f"{names or 'not checked'}: {busy}; the job waits until they are free")
    return names


def _torch_gpu_name() -> str:
    import torch  # takes seconds

    if not torch.cuda.is_available():
        build = f"torch {torch.__version__} (built for CUDA {torch.version.cuda})"
        raise InputError(
            f"Ray assigns a GPU that {build} cannot use; update the driver, or use the torch of the lock"
        )
    return f"{torch.cuda.get_device_name()} under CUDA {torch.version.cuda}"


def _object_store(step_bytes: int, steps: int) -> str:
    available = int(ray.cluster_resources().get("object_store_memory", 0))
    needed = steps * step_bytes
    if available < needed:
        raise CheckWarningError(
            f"{available / GIB:.1f} GiB, and {steps} decoded steps take {needed / GIB:.1f};"
            " start nodes with more --object-store-memory, or --set batch_size=N"
        )
    return f"{available / GIB:.1f} GiB, holds {available // step_bytes} decoded steps"


def _weights(model: ModelConfig, modality: Modality) -> str:
    # These import torch, only needed for recipes with weights.
    from stbir.model.builder import build_encoder, resolve
    from stbir.model.weights import is_pretrained_tag

    source = str(getattr(model, modality).weights)
    if is_pretrained_tag(source):
        raise CheckWarningError(
            f"{source!r} is downloaded from the hub when training starts; if offline, give a path or URI"
        )
    build_encoder(resolve(model), modality)
    return f"{source}: loaded"
