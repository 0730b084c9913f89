"""What `serve deploy` and KubeRay are told of the endpoint, held against Ray's schema and the code."""

from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from ray.serve.schema import ServeDeploySchema

from serve.deployments.ingress import Ingress
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.rollout.release import Wanted
from tests.conftest import ROOT

KINDS = [kind.__name__ for kind in (Ingress, SketchReplica, TextReplica, FusionReplica)]


def told(name: str) -> dict[str, Any]:
    first = next(yaml.safe_load_all((ROOT / name).read_text()))
    found: dict[str, Any] = yaml.safe_load(first["spec"]["serveConfigV2"]) if "spec" in first else first
    return found


@pytest.mark.parametrize("name", ["serve/deploy.yaml", "deploy/kuberay/serve.yaml"])
def test_every_deployment_is_told_the_release_that_the_arguments_start_with(name: str) -> None:
    [app] = told(name)["applications"]
    ServeDeploySchema.model_validate(told(name))
    assert [deployment["name"] for deployment in app["deployments"]] == KINDS
    releases = [TypeAdapter(Wanted).validate_python(each["user_config"]) for each in app["deployments"]]
    assert set(releases) == {Wanted(app["args"]["checkpoint"], app["args"]["gallery"])}


def test_without_keys_it_listens_on_its_own_machine_alone() -> None:
    assert ServeDeploySchema.model_validate(told("serve/deploy.yaml")).http_options.host == "127.0.0.1"
