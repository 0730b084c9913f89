"""KubeRay manifests against the schemas of Kubernetes, and the isolation of pods: rights, network, nodes."""

from pathlib import Path

import kubernetes_validate
import pytest

from serve.settings import read_settings
from tests.conftest import ROOT
from tests.deploy.manifests import (
    FILES,
    FOLDER,
    cluster,
    groups,
    objects,
    of_kind,
    ray_object,
    selects,
    templates,
)

KUBERNETES = "1.34"
# Fields of KubeRay 1.7's ray.io/v1, except status and those of pods.
RAY_FIELDS = {
    "RayService": {"serveConfigV2", "rayClusterConfig", "upgradeStrategy"},
    "RayJob": {
        *("entrypoint", "submissionMode", "backoffLimit", "activeDeadlineSeconds", "rayClusterSpec"),
        *("shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "submitterPodTemplate"),
    },
    "cluster": {
        *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
        *("gcsFaultToleranceOptions", "headGroupSpec", "workerGroupSpecs"),
    },
    "autoscaler": {
        *("version", "idleTimeoutSeconds", "upscalingMode", "resources", "securityContext", "env"),
        *("envFrom", "volumeMounts", "image", "imagePullPolicy"),
    },
    "head": {"labels", "rayStartParams", "template", "serviceType", "headService", "enableIngress"},
    "worker": {
        *("groupName", "labels", "replicas", "minReplicas", "maxReplicas", "numOfHosts"),
        *("idleTimeoutSeconds", "rayStartParams", "template", "scaleStrategy"),
    },
}


def check_schemas(file: Path) -> None:
    """Objects and pods match the schemas of Kubernetes, fields of Ray's objects are those of KubeRay."""
    for each in objects(file):
        if each["apiVersion"] != "ray.io/v1":
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
    for template in templates(file):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template}, KUBERNETES, strict=True)
    head, *workers = groups(file)
    assert set(ray_object(file)["spec"]) <= RAY_FIELDS[ray_object(file)["kind"]]
    assert set(cluster(file)) <= RAY_FIELDS["cluster"]
    assert set(cluster(file)["autoscalerOptions"]) <= RAY_FIELDS["autoscaler"]
    assert set(head) <= RAY_FIELDS["head"]
    for group in workers:
        assert set(group) <= RAY_FIELDS["worker"]
        assert {type(value) for value in group["rayStartParams"].values()} <= {str}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_manifest_matches_the_schemas(file: Path) -> None:
    check_schemas(file)


def test_wrong_fields_are_detected() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **templates(FOLDER / "serve.yaml")[0]}
    pod["spec"] = {**pod["spec"], "seccompprofile": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pods_are_not_root_and_write_only_to_volumes(file: Path) -> None:
    for template in templates(file):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            if container["name"].startswith("ray-"):
                mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
                assert all("emptyDir" in mounts[path] for path in ("/tmp", "/tmp/ray", "/home/ray"))


def test_cache_of_the_gallery_is_on_a_volume() -> None:
    assert str(read_settings(str(ROOT / "serve/profiles/cluster.yaml")).fusion.cache).startswith("~/")
    assert "useradd --create-home --uid 1000 ray" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_pod_has_a_network_policy_that_admits_its_own_cluster(file: Path) -> None:
    for template in templates(file):
        [policy] = [
            each["spec"]
            for each in of_kind(file, "NetworkPolicy")
            if selects(each["spec"]["podSelector"], template)
        ]
        assert "Ingress" in policy["policyTypes"]
    head, *workers = [group["template"] for group in groups(file)]
    [policy] = [
        each["spec"] for each in of_kind(file, "NetworkPolicy") if selects(each["spec"]["podSelector"], head)
    ]
    own = policy["ingress"][0]
    assert "ports" not in own
    assert all(selects(own["from"][0]["podSelector"], template) for template in (head, *workers))
    ports = {port["port"] for rule in policy["ingress"] if "from" not in rule for port in rule["ports"]}
    assert ports == ({8000} if file.stem == "serve" else set())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_disruption_budget_protects_replicas_or_the_head_of_a_job(file: Path) -> None:
    [budget] = of_kind(file, "PodDisruptionBudget")
    head, *workers = [group["template"] for group in groups(file)]
    protected = workers if file.stem == "serve" else [head]
    assert budget["spec"]["minAvailable"] == 1
    assert [each for each in (head, *workers) if selects(budget["spec"]["selector"], each)] == protected


def test_replicas_are_on_different_machines() -> None:
    [group] = cluster(FOLDER / "serve.yaml")["workerGroupSpecs"]
    affinity = group["template"]["spec"]["affinity"]["podAntiAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert selects(term["labelSelector"], group["template"])
