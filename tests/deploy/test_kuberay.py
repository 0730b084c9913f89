"""The KubeRay manifests: closed by default, bounded, probed, and consistent with the code they start."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_jobs import embed_gallery, train
from ray_jobs.cluster.placement import ROLE
from ray_jobs.recipes import recipe
from ray_jobs.training.job import worker_range
from serve.app import ARGUMENTS
from serve.environment import WANTED
from serve.settings import read_settings
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kuberay"
PROFILE = "serve/profiles/cluster.yaml"
FILES = sorted(FOLDER.glob("*.yaml"))
Object = dict[str, Any]


def objects(file: Path) -> list[Object]:
    return [found for found in yaml.safe_load_all(file.read_text()) if found]


def ray_object(file: Path) -> Object:
    [found] = [each for each in objects(file) if each["apiVersion"] == "ray.io/v1"]
    return found


def cluster(file: Path) -> Object:
    spec = ray_object(file)["spec"]
    found: Object = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    return found


def groups(file: Path) -> list[Object]:
    return [cluster(file)["headGroupSpec"], *cluster(file)["workerGroupSpecs"]]


def containers(file: Path) -> list[Object]:
    pods = [group["template"]["spec"] for group in groups(file)]
    pods += [each["spec"]["template"]["spec"] for each in objects(file) if each["kind"] == "StatefulSet"]
    return [container for pod in pods for container in pod["containers"]]


def test_there_is_one_for_each_kind_of_work() -> None:
    kinds = {file.stem: ray_object(file)["kind"] for file in FILES}
    assert kinds == {"train": "RayJob", "embed": "RayJob", "serve": "RayService"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_token_is_asked_for_and_ray_is_the_locks(file: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert cluster(file)["authOptions"] == {"mode": "token"}
    assert f"\nray=={cluster(file)['rayVersion']} " in lock


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_container_is_bounded_probed_and_without_rights(file: Path) -> None:
    for container in containers(file):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests == limits
        assert {"cpu", "memory"} <= set(limits)
        assert container["readinessProbe"]
        assert container["livenessProbe"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_probes_run_a_file_that_is_there(file: Path) -> None:
    ray_containers = [each for each in containers(file) if each["name"].startswith("ray-")]
    for container in ray_containers:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            python, script, *places = container[probe]["exec"]["command"]
            assert python == "python"
            assert (ROOT / script).is_file()
            assert places


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_head_keeps_no_work_and_every_group_has_a_role(file: Path) -> None:
    head, *workers = groups(file)
    assert head["rayStartParams"]["num-cpus"] == "0"
    roles = [group["labels"][ROLE] for group in (head, *workers)]
    assert roles[0] == "head"
    assert set(roles[1:]) <= {"data", "accelerator"}
    for group in workers:
        [container] = group["template"]["spec"]["containers"]
        assert (group["labels"][ROLE] == "accelerator") is (
            "nvidia.com/gpu" in container["resources"]["limits"]
        )
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("name", ["train", "embed"])
def test_a_jobs_entry_point_is_a_command_of_this_project(name: str) -> None:
    python, script, *arguments = shlex.split(ray_object(FOLDER / f"{name}.yaml")["spec"]["entrypoint"])
    assert python == "python"
    assert (ROOT / script).is_file()
    args = {"train": train, "embed": embed_gallery}[name].parser().parse_args(arguments)
    if name == "train":
        worker_range(args.workers, recipe(args.recipe).batch_size)


def test_the_endpoint_outlives_its_head_and_asks_for_keys() -> None:
    file = FOLDER / "serve.yaml"
    storage = cluster(file)["gcsFaultToleranceOptions"]
    [service] = [each for each in objects(file) if each["kind"] == "Service"]
    assert storage["redisAddress"] == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert "secretKeyRef" in storage["redisPassword"]["valueFrom"]
    settings = yaml.safe_load(ray_object(file)["spec"]["serveConfigV2"])
    [application] = settings["applications"]
    assert application["import_path"] == "serve.app:build"
    assert set(application["args"]) <= set(ARGUMENTS)
    assert application["args"]["config"] == f"/app/{PROFILE}"
    assert "WORKDIR /app" in (ROOT / "Dockerfile").read_text().splitlines()
    keys = application["runtime_env"]["env_vars"]["STBIR_API_KEYS_FILE"]
    mounts = [mount["mountPath"] for mount in containers(file)[0]["volumeMounts"]]
    assert str(Path(keys).parent) in mounts


def test_a_pod_has_room_for_one_replica_of_each_kind_and_may_be_lost() -> None:
    file, profile = FOLDER / "serve.yaml", read_settings(str(ROOT / PROFILE))
    options = [part.options for part in (profile.ingress, profile.sketch, profile.text, profile.fusion)]
    [group] = cluster(file)["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    limits, wanted = container["resources"]["limits"], [each["ray_actor_options"] for each in options]
    assert sum(actor["num_cpus"] for actor in wanted) <= int(limits["cpu"])
    assert sum(actor.get("num_gpus", 0) for actor in wanted) <= int(limits["nvidia.com/gpu"])
    least = {each["autoscaling_config"]["min_replicas"] for each in options}
    assert least == {group["minReplicas"]} == {2}
    [application] = yaml.safe_load(ray_object(file)["spec"]["serveConfigV2"])["applications"]
    assert [each["max_replicas_per_node"] for each in application["deployments"]] == [1] * len(options)


def test_a_pod_gets_requests_while_its_proxy_is_well_and_lives_without() -> None:
    [group] = cluster(FOLDER / "serve.yaml")["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    probed = {probe: container[probe]["exec"]["command"][2:] for probe in ("readinessProbe", "livenessProbe")}
    assert probed["readinessProbe"] == [*probed["livenessProbe"], "8000/-/healthz"]


def test_ray_serve_finds_in_every_pod_what_it_reads_from_its_environment() -> None:
    for container in containers(FOLDER / "serve.yaml"):
        if container["name"].startswith("ray-"):
            there = {each["name"]: each.get("value") for each in container["env"]}
            assert {name: value for name, value in there.items() if name.startswith("RAY_")} == WANTED


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_to_be_filled_in_is_marked_and_no_secret_is_in_it(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if "FILL-IN" in line] == [line for line in lines if "<- fill in" in line]
    assert "kind: Secret" not in file.read_text()


def test_the_image_takes_what_the_lock_and_the_repository_hold() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(allowed) == sorted(copied)
    assert any("--require-hashes requirements.lock" in line for line in lines)
    assert "USER 1000" in lines
