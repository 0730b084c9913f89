"""KubeRay manifests: token, resource limits, probes, and consistency with the code they start."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ray_jobs import embed_gallery, train
from ray_jobs.cluster.placement import ROLE_LABEL
from ray_jobs.recipes import recipe
from ray_jobs.training.job import worker_range
from serve.app import ARGUMENTS
from serve.environment import DEFAULT_VARIABLES
from serve.settings import read_settings
from tests.conftest import ROOT
from tests.deploy.manifests import FILES, FOLDER, cluster, containers, groups, of_kind, ray_object

PROFILE = "serve/profiles/cluster.yaml"


def test_one_manifest_per_kind_of_job() -> None:
    kinds = {file.stem: ray_object(file)["kind"] for file in FILES}
    assert kinds == {"train": "RayJob", "embed": "RayJob", "serve": "RayService"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_token_is_required_and_ray_version_is_that_of_the_lock(file: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert cluster(file)["authOptions"] == {"mode": "token"}
    assert f"\nray=={cluster(file)['rayVersion']} " in lock


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_container_has_limits_probes_and_no_privileges(file: Path) -> None:
    for container in containers(file):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests == limits
        assert {"cpu", "memory"} <= set(limits)
        assert container["readinessProbe"]
        assert container["livenessProbe"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_probes_run_an_existing_file(file: Path) -> None:
    ray_containers = [each for each in containers(file) if each["name"].startswith("ray-")]
    for container in ray_containers:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            python, script, *endpoints = container[probe]["exec"]["command"]
            assert python == "python"
            assert (ROOT / script).is_file()
            assert endpoints


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_head_has_no_cpus_and_every_group_has_a_role(file: Path) -> None:
    head, *workers = groups(file)
    assert head["rayStartParams"]["num-cpus"] == "0"
    roles = [group["labels"][ROLE_LABEL] for group in (head, *workers)]
    assert roles[0] == "head"
    assert set(roles[1:]) <= {"data", "accelerator"}
    for group in workers:
        [container] = group["template"]["spec"]["containers"]
        assert (group["labels"][ROLE_LABEL] == "accelerator") is (
            "nvidia.com/gpu" in container["resources"]["limits"]
        )
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("name", ["train", "embed"])
def test_job_entry_point_is_a_command_of_this_project(name: str) -> None:
    python, script, *arguments = shlex.split(ray_object(FOLDER / f"{name}.yaml")["spec"]["entrypoint"])
    assert python == "python"
    assert (ROOT / script).is_file()
    args = {"train": train, "embed": embed_gallery}[name].parser().parse_args(arguments)
    if name == "train":
        worker_range(args.workers, recipe(args.recipe).batch_size)


def test_endpoint_stores_head_state_in_redis_and_requires_keys() -> None:
    file = FOLDER / "serve.yaml"
    storage = cluster(file)["gcsFaultToleranceOptions"]
    [service] = of_kind(file, "Service")
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


def test_pod_fits_one_replica_of_each_kind_and_two_pods_run() -> None:
    file, profile = FOLDER / "serve.yaml", read_settings(str(ROOT / PROFILE))
    options = [part.options for part in (profile.ingress, profile.sketch, profile.text, profile.fusion)]
    [group] = cluster(file)["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    limits, actors = container["resources"]["limits"], [each["ray_actor_options"] for each in options]
    assert sum(actor["num_cpus"] for actor in actors) <= int(limits["cpu"])
    assert sum(actor.get("num_gpus", 0) for actor in actors) <= int(limits["nvidia.com/gpu"])
    min_replicas = {each["autoscaling_config"]["min_replicas"] for each in options}
    assert min_replicas == {group["minReplicas"]} == {2}
    [application] = yaml.safe_load(ray_object(file)["spec"]["serveConfigV2"])["applications"]
    assert [each["max_replicas_per_node"] for each in application["deployments"]] == [1] * len(options)


def test_pods_have_room_for_all_replicas() -> None:
    file, profile = FOLDER / "serve.yaml", read_settings(str(ROOT / PROFILE))
    [group] = cluster(file)["workerGroupSpecs"]
    [application] = yaml.safe_load(ray_object(file)["spec"]["serveConfigV2"])["applications"]
    defaults = {
        "Ingress": profile.ingress,
        "SketchReplica": profile.sketch,
        "TextReplica": profile.text,
        "FusionReplica": profile.fusion,
    }
    for deployment in application["deployments"]:
        # Serve replaces the whole of an option.
        scaling = (defaults[deployment["name"]].options | deployment)["autoscaling_config"]
        assert scaling["min_replicas"] == 2
        room = deployment["max_replicas_per_node"] * group["maxReplicas"]
        assert scaling["max_replicas"] <= room, deployment["name"]


def test_readiness_needs_the_proxy_and_liveness_does_not() -> None:
    [group] = cluster(FOLDER / "serve.yaml")["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    probed = {probe: container[probe]["exec"]["command"][2:] for probe in ("readinessProbe", "livenessProbe")}
    assert probed["readinessProbe"] == [*probed["livenessProbe"], "8000/-/healthz"]


def test_every_pod_sets_the_environment_of_ray_serve() -> None:
    for container in containers(FOLDER / "serve.yaml"):
        if container["name"].startswith("ray-"):
            variables = {each["name"]: each.get("value") for each in container["env"]}
            assert {
                name: value for name, value in variables.items() if name.startswith("RAY_")
            } == DEFAULT_VARIABLES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_placeholders_are_marked_and_there_is_no_secret(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if "FILL-IN" in line] == [line for line in lines if "<- fill in" in line]
    assert "kind: Secret" not in file.read_text()


def test_image_copies_tracked_files_and_installs_the_runtime_lock() -> None:
    text = (ROOT / "Dockerfile").read_text()
    lines = text.splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(allowed) == sorted(copied)
    assert "--require-hashes requirements.runtime.lock" in text
    assert re.search(r"uv==\d", text)
    assert "USER 1000" in lines


def pins(name: str) -> dict[str, str]:
    """Package → version of a lock file."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


def test_runtime_lock_agrees_with_the_lock_and_has_no_dev_packages() -> None:
    runtime, project = pins("requirements.runtime.lock"), tomllib.loads((ROOT / "pyproject.toml").read_text())
    dev = {canonicalize_name(Requirement(line).name) for line in project["dependency-groups"]["dev"]}
    required = {canonicalize_name(Requirement(line).name) for line in project["project"]["dependencies"]}
    assert required <= runtime.keys()
    # Ray requires the first, the extras `hf`, `openvino` and `milvus` the others.
    extras = {"transformers", "openvino", "onnx", "onnxscript", "pymilvus"}
    assert runtime.keys() & dev <= {"jsonschema", *extras}
    assert runtime.items() <= pins("requirements.lock").items()


def test_runtime_lock_has_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements.runtime.lock").read_text()
    assert "://" not in text
    lines = re.findall(r"^[\w.-]+==.*\n.*", text, re.MULTILINE)
    assert len(lines) > 100
    assert [line for line in lines if "\n    --hash=sha256:" not in line] == []
