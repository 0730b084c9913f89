"""Deploys on Ray Serve: what replicas serve that start after a publish, and what a repeated deploy does."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from serve.messages import Release
from serve.rollout.records import DeployRecord, GcsStore, ReleaseRecords
from stbir.gallery.gallery import open_table
from stbir.gallery.publish import prepare, publish
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from tests.conftest import wait_until

APP = "deploys"


def publish_again(gallery: str, digest: str) -> int:
    """Publish one more version of a gallery and return its number."""
    folder = Folder(gallery)
    table = open_table(folder)
    candidate = prepare(folder, table.version, digest, None)
    publish(folder, candidate, {"ok": table.count_rows()})
    return candidate.version


@pytest.fixture
def file(checkpoint_uri: str, write_gallery: Any, tmp_path: Any) -> dict[str, Any]:
    """A file for `serve deploy` with `version: null`."""
    gallery = write_gallery(tmp_path / "gallery", checkpoint.read_digest(checkpoint_uri))
    release = {"checkpoint": checkpoint_uri, "gallery": gallery, "version": None}
    names = ("Ingress", "SketchReplica", "TextReplica", "FusionReplica")
    application = {
        "name": APP,
        "route_prefix": f"/{APP}",
        "import_path": "serve.app:build",
        "args": {"checkpoint": checkpoint_uri, "gallery": gallery},
        "deployments": [{"name": name, "user_config": release} for name in names],
    }
    return {"applications": [application]}


@pytest.fixture
def client(serve_port: int) -> Iterator[httpx.Client]:
    """An HTTP client of the application; deletes it in the end."""
    with httpx.Client(base_url=f"http://127.0.0.1:{serve_port}/{APP}", timeout=30) as client:
        yield client
    serve.delete(APP)


@pytest.mark.usefixtures("ray_cluster")
def test_gcs_stores_the_records_of_deploys() -> None:
    records = ReleaseRecords(GcsStore())
    assert (records.active(), records.newest()) == (None, None)
    releases = {time_s: Release(f"c/step-{time_s}", "sha256:c", "g", 1) for time_s in (2.0, 10.0)}
    for time_s in (10.0, 2.0):  # the earlier deploy is the later one to be written
        records.add(f"{time_s!r}/config", DeployRecord.of(releases[time_s], "ada@head", time_s, {}))
        records.set_active(f"{time_s!r}/config")
    assert records.active() == records.newest() == releases[10.0]
    assert ReleaseRecords(GcsStore()).newest() is None


def deploy(file: dict[str, Any]) -> None:
    """Same as `serve deploy`, without the dashboard."""
    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(file))


def replicas() -> dict[str, ray.actor.ActorHandle]:
    """The replicas of the application by name."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    names = [actor["name"] for actor in actors if f"::{APP}#" in actor["name"]]
    return {name: ray.get_actor(name, namespace="serve") for name in names}


@pytest.mark.slow(reason="starts an application and its replicas a second time, each in a process of its own")
def test_late_replicas_serve_the_release_in_force_until_the_next_deploy(
    file: dict[str, Any], client: httpx.Client, checkpoint_uri: str
) -> None:
    def version() -> int | None:
        try:
            response = client.post("/v1/search", json={"text": "a red disc"})
        except httpx.TimeoutException:  # the proxy waits for an ingress
            return None
        return response.json()["gallery_version"] if response.status_code == 200 else None

    deploy(file)
    wait_until(lambda: version() is not None, "the first release", 400)
    first, old = version(), replicas()
    gallery = file["applications"][0]["args"]["gallery"]
    second = publish_again(gallery, checkpoint.read_digest(checkpoint_uri))
    assert second != first

    for name, replica in old.items():
        if "Ingress" in name or "FusionReplica" in name:
            ray.kill(replica)
    wait_until(lambda: len(replicas().keys() - old.keys()) == 2, "two new replicas", 300)
    wait_until(lambda: version() is not None, "an answer of the new replicas", 300)
    assert {version() for _ in range(5)} == {first}

    deploy(file)  # Serve calls no replica: nothing in the file has changed
    wait_until(lambda: version() == second, "the published version", 120)
    assert client.get("/readyz").json()["gallery_version"] == second
