"""The Serve configuration files match Ray's schema and the code."""

from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from ray.serve.schema import ServeDeploySchema

from serve.deployments.ingress import Ingress
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.rollout.release import ReleaseConfig
from tests.conftest import ROOT

KINDS = [kind.__name__ for kind in (Ingress, SketchReplica, TextReplica, FusionReplica)]


def serve_config(name: str) -> dict[str, Any]:
    document = next(yaml.safe_load_all((ROOT / name).read_text()))
    config: dict[str, Any] = (
        yaml.safe_load(document["spec"]["serveConfigV2"]) if "spec" in document else document
    )
    return config


@pytest.mark.parametrize("name", ["serve/deploy.yaml", "deploy/kuberay/base/serve.yaml"])
def test_every_deployment_has_the_release_of_the_arguments(name: str) -> None:
    [app] = serve_config(name)["applications"]
    ServeDeploySchema.model_validate(serve_config(name))
    assert [deployment["name"] for deployment in app["deployments"]] == KINDS
    releases = [
        TypeAdapter(ReleaseConfig).validate_python(each["user_config"]) for each in app["deployments"]
    ]
    assert set(releases) == {ReleaseConfig(app["args"]["checkpoint"], app["args"]["gallery"])}


def test_deploy_file_listens_on_loopback() -> None:
    assert (
        ServeDeploySchema.model_validate(serve_config("serve/deploy.yaml")).http_options.host == "127.0.0.1"
    )
