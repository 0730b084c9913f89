"""Galleries by name on Ray Serve: separate deployments, a deploy that moves one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from stbir.model import checkpoint
from tests.conftest import wait_until
from tests.serve.test_deploys import publish_again

APP = "galleries"
KINDS = ("Ingress", "SketchReplica", "TextReplica", "FusionReplica", "FusionReplica_shoes")


@pytest.fixture
def galleries(checkpoint_uri: str, write_gallery: Any, tmp_path: Path) -> dict[str, str]:
    """The URIs of two galleries, each of which a test may publish again."""
    digest = checkpoint.read_digest(checkpoint_uri)
    return {
        "default": write_gallery(tmp_path / "default", digest),
        "shoes": write_gallery(tmp_path / "shoes", digest, "shoe"),
    }


@pytest.fixture
def client(serve_port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{serve_port}/{APP}", timeout=60) as client:
        yield client
    serve.delete(APP)


def deploy(checkpoint_uri: str, galleries: dict[str, str], config: Path, version: int | None) -> None:
    """Same as `serve deploy`, with this version of the shoes and `version: null` of the default gallery."""
    config.write_text(yaml.safe_dump({"galleries": {"shoes": {"gallery": galleries["shoes"]}}}))
    release = {"checkpoint": checkpoint_uri, "gallery": galleries["default"], "version": None}
    release["galleries"] = {"shoes": {"gallery": galleries["shoes"], "version": version}}
    application = {
        "name": APP,
        "route_prefix": f"/{APP}",
        "import_path": "serve.app:build",
        "args": {"checkpoint": checkpoint_uri, "gallery": galleries["default"], "config": str(config)},
        "deployments": [{"name": name, "user_config": release} for name in KINDS],
    }
    schema = ServeDeploySchema.model_validate({"applications": [application]})
    _get_global_client().deploy_apps(schema)


@pytest.mark.slow(reason="starts an application of five deployments, each in a process of its own")
def test_each_gallery_has_its_own_release(
    client: httpx.Client, checkpoint_uri: str, galleries: dict[str, str], tmp_path: Path
) -> None:
    def is_ready() -> bool:
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TimeoutException:  # the proxy waits for an ingress
            return False

    def search(path: str) -> dict[str, Any]:
        response = client.post(path, json={"text": "a red disc"})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    deploy(checkpoint_uri, galleries, tmp_path / "config.yaml", None)
    wait_until(is_ready, "both galleries", 400)
    default, shoes = search("/v1/search"), search("/v1/galleries/shoes/search")
    assert {hit["photo_id"].partition("/")[0] for hit in default["hits"]} == {"shape"}
    assert {hit["photo_id"].partition("/")[0] for hit in shoes["hits"]} == {"shoe"}
    assert client.get(shoes["hits"][0]["uri"]).status_code == 200
    assert [each["name"] for each in client.get("/v1/galleries").json()["galleries"]] == ["default", "shoes"]

    digest = checkpoint.read_digest(checkpoint_uri)
    newest = {name: publish_again(uri, digest) for name, uri in galleries.items()}
    deploy(checkpoint_uri, galleries, tmp_path / "config.yaml", newest["shoes"])

    def version() -> int:
        number: int = search("/v1/galleries/shoes/search")["gallery_version"]
        return number

    wait_until(lambda: version() == newest["shoes"], "the new version of the shoes", 120)
    assert search("/v1/search")["gallery_version"] == default["gallery_version"] != newest["default"]
