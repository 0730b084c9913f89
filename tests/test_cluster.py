"""Cluster files against Ray's schema and loader, a mock of AWS, and the schema of Google's API."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import googleapiclient
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.conftest import ROOT

FILE = ROOT / "cluster.yaml"
MARKER = "<- fill in"
VALUES = {"FILL-IN-REGION": "us-east-1", "FILL-IN-BUCKET": "the-bucket", "FILL-IN-KEY-NAME": "the-key"}
GCP_FILE = ROOT / "deploy" / "cluster.gcp.yaml"
GCP_VALUES = {
    "FILL-IN-PROJECT": "the-project",
    "FILL-IN-REGION": "us-west1",
    "FILL-IN-ZONE": "us-west1-a",
    "FILL-IN-BUCKET": "the-bucket",
}
LOCAL = {
    "FILL-IN-HEAD": "10.0.0.1",
    "FILL-IN-WORKERS": "10.0.0.2, 10.0.0.3",
    "FILL-IN-USER": "ubuntu",
    "FILL-IN-KEY-FILE": "~/.ssh/cluster",
}
Config = dict[str, Any]


def filled_in(private_key: str = "key.pem") -> Config:
    """cluster.yaml with its marked lines filled in."""
    config = load(FILE, VALUES)
    config["auth"]["ssh_private_key"] = private_key
    return config


def load(file: Path, values: dict[str, str]) -> Config:
    text = file.read_text()
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    config: Config = yaml.safe_load(text)
    return config


def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # the loader stores the state of local clusters there
    return prepare_config(load(ROOT / "deploy" / "cluster.local.yaml", LOCAL))


@pytest.mark.parametrize(
    ("name", "values"),
    [("cluster.yaml", VALUES), ("deploy/cluster.gcp.yaml", GCP_VALUES), ("deploy/cluster.local.yaml", LOCAL)],
)
def test_placeholders_are_on_marked_lines(name: str, values: dict[str, str]) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    marked = [line for line in lines if MARKER in line]
    assert [line for line in lines if "FILL-IN" in line] == marked
    assert set(re.findall(r"FILL-IN-[A-Z-]+", "\n".join(lines))) == set(values)


@pytest.mark.parametrize("config", [filled_in(), load(GCP_FILE, GCP_VALUES)], ids=["aws", "gcp"])
def test_ray_accepts_the_cluster_file(config: Config) -> None:
    validate_config(prepare_config(config))


def test_google_cloud_starts_ray_as_aws_does() -> None:
    aws, gcp = (
        {key: value for key, value in config.items() if key.endswith(("commands", "mounts"))}
        for config in (load(FILE, {"s3://": "gs://"}), load(GCP_FILE, {":6379 gcp >": ":6379 >"}))
    )
    assert gcp == aws


def instance_schema() -> Callable[[Any, Config], None]:
    """Checks a value against the discovery document of Google's Compute Engine: fields, types, choices."""
    documents = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    schemas = json.loads((documents / "compute.v1.json").read_text())["schemas"]
    types = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict}

    def check(value: Any, schema: Config) -> None:
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
        assert isinstance(value, types[schema["type"]]), (value, schema)
        assert value in schema.get("enum", [value])
        for item in value if isinstance(value, list) else []:
            check(item, schema["items"])
        for name, field in value.items() if isinstance(value, dict) else []:
            check(field, schema["properties"][name])

    return check


@pytest.mark.parametrize("kind", ["head", "cpu", "gpu"])
def test_machines_match_the_schema_of_google_cloud(kind: str) -> None:
    check = instance_schema()
    node = load(GCP_FILE, GCP_VALUES)["available_node_types"][kind]["node_config"]
    check(node, {"$ref": "Instance"})
    with pytest.raises(KeyError):
        check({**node, "spot": True}, {"$ref": "Instance"})
    spot = {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}  # as its comment says
    check({**node.get("scheduling", {}), **spot}, {"$ref": "Scheduling"})


def test_ray_accepts_the_local_cluster_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = local(tmp_path, monkeypatch)
    validate_config(config)
    assert config["provider"]["worker_ips"] == ["10.0.0.2", "10.0.0.3"]
    head, worker = (config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker"))
    assert "--num-cpus=0" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert all("RAY_AUTH_MODE=token" in command for command in (head, worker))


def _unknown_field(config: Config) -> None:
    config["available_node_types"]["gpu"]["spot"] = True


def _wrong_type(config: Config) -> None:
    config["available_node_types"]["cpu"]["max_workers"] = "many"


def _no_such_head(config: Config) -> None:
    config["head_node_type"] = "none"


@pytest.mark.parametrize("break_config", [_unknown_field, _wrong_type, _no_such_head])
def test_ray_refuses_an_invalid_config(break_config: Callable[[Config], None]) -> None:
    config = filled_in()
    break_config(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(prepare_config(config))


def test_aws_has_the_instance_types_and_key(aws: None, tmp_path: Path) -> None:
    import boto3

    pair = boto3.client("ec2").create_key_pair(KeyName=VALUES["FILL-IN-KEY-NAME"])
    key = tmp_path / "key.pem"
    key.write_text(pair["KeyMaterial"])
    types = _bootstrap_config(filled_in(str(key)), no_config_cache=True)["available_node_types"]

    assert types["head"]["resources"] == {"CPU": 0}  # the head runs no tasks
    assert types["cpu"]["resources"]["CPU"] == 16  # from the instance type
    assert types["gpu"]["resources"]["GPU"] == 1
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in types.values())
    # As in the file. Ray's default image has an older glibc and driver than the lock needs.
    assert {kind["node_config"]["ImageId"] for kind in types.values()} == {
        kind["node_config"]["ImageId"] for kind in _kinds(filled_in())
    }


def test_instance_profiles_exist_with_permissions_on_one_bucket_only(aws: None) -> None:
    import boto3

    names = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in _kinds(filled_in())}
    boto3.client("cloudformation").create_stack(
        StackName="stbir",
        TemplateBody=(ROOT / "deploy" / "aws-rights.yaml").read_text(),
        Parameters=[{"ParameterKey": "Bucket", "ParameterValue": VALUES["FILL-IN-BUCKET"]}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    iam = boto3.client("iam")
    profiles = {
        profile["InstanceProfileName"] for profile in iam.list_instance_profiles()["InstanceProfiles"]
    }
    assert names <= profiles
    [data] = iam.list_attached_role_policies(RoleName="stbir-worker")["AttachedPolicies"]
    policy = iam.get_policy_version(PolicyArn=data["PolicyArn"], VersionId="v1")["PolicyVersion"]["Document"]
    statements = policy["Statement"]
    assert {s["Resource"].removesuffix("/*") for s in statements} == {"arn:aws:s3:::the-bucket"}
    assert "*" not in json.dumps([s["Action"] for s in statements])
    assert not iam.list_role_policies(RoleName="stbir-worker")["PolicyNames"]
    head = iam.get_role_policy(RoleName="stbir-head", PolicyName="stbir-workers")["PolicyDocument"]
    statements = yaml.safe_load(str(head))["Statement"]  # moto returns the repr of a dict, which is YAML
    # A role that can tag any instance as the cluster's could also terminate it.
    conditions = [
        s.get("Condition")
        for s in statements
        if {"ec2:CreateTags", "ec2:TerminateInstances"}
        & set([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    ]
    assert len(conditions) == 3
    assert all(conditions)
    [readable] = [s["Resource"] for s in statements if "ssm:GetParameters" in s["Action"]]
    for kind in _kinds(filled_in()):
        parameter = kind["node_config"]["ImageId"].removeprefix("resolve:ssm:")
        assert fnmatch(f"arn:aws:ssm:us-east-1::parameter{parameter}", readable)


def _kinds(config: Config) -> list[Config]:
    return list(config["available_node_types"].values())


# Images with NVIDIA's driver have nvidia-smi even on machines without a GPU.
@pytest.mark.parametrize(
    ("command", "role"),
    [("echo GPU 0: NVIDIA L4", "accelerator"), ("echo NVIDIA-SMI has failed; exit 9", "data")],
)
@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/cluster.gcp.yaml", "deploy/cluster.local.yaml"])
def test_machine_with_a_gpu_has_the_accelerator_role(
    tmp_path: Path, name: str, command: str, role: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o700)
    [line] = re.findall(r"role=\$\(.*?\);", (ROOT / name).read_text())
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    completed = subprocess.run(
        ["bash", "-c", f"{line} echo $role"], env=path, capture_output=True, check=True
    )
    assert completed.stdout.decode().strip() == role


def test_token_is_required_and_the_dashboard_is_local() -> None:
    config = filled_in()
    starts = [c for k in ("head", "worker") for c in config[f"{k}_start_ray_commands"] if " ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_no_credentials_and_permissions_by_role() -> None:
    config = filled_in()
    assert not re.search(r"AKIA|aws_secret|aws_access|BEGIN .*PRIVATE", FILE.read_text(), re.IGNORECASE)
    assert all(
        "IamInstanceProfile" in kind["node_config"] for kind in config["available_node_types"].values()
    )


def test_mounted_files_exist() -> None:
    mounts = filled_in()["file_mounts"]
    assert all((ROOT / source).is_file() for source in mounts.values() if not source.startswith("~"))
    assert any("~/stbir/spot_notice.py" in command for command in filled_in()["worker_start_ray_commands"])


@pytest.mark.parametrize("config", [filled_in(), load(GCP_FILE, GCP_VALUES)], ids=["aws", "gcp"])
def test_idle_cluster_has_no_workers(config: Config) -> None:
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != "head"}
    assert all(kind["min_workers"] == 0 for kind in workers.values())
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert sum(kind["max_workers"] for kind in workers.values()) <= config["max_workers"]
