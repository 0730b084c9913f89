"""The application under load on a real cluster: rollouts and autoscaling."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.cluster.application import Deployed, Release, concurrent_clients, release
from tests.cluster.head import Head
from tests.conftest import free_port, wait_until

pytestmark = [
    pytest.mark.endurance,
    pytest.mark.slow(reason="a cluster of its own, under load"),
    pytest.mark.timeout(600),
]

ROLLOUTS = 5


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    folder = tmp_path_factory.mktemp("change")
    return [release(folder, seed) for seed in range(2)]


@pytest.fixture(scope="module")
def deployed(
    head: Head, releases: list[Release], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("deploy")
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", timeout=30, trust_env=False) as http:
        app = Deployed(head, folder, releases[0], http)
        app.deploy(releases[0].user_config)

        def up() -> bool:
            try:
                return bool(app.ready())
            except httpx.TransportError:
                return False

        wait_until(up, "the start of the application", 240)
        yield app


def test_rollouts_under_load_answer_each_request_from_one_release(
    deployed: Deployed, releases: list[Release]
) -> None:
    with concurrent_clients(deployed.http, 4, "a red disc") as futures:
        for rollout in range(ROLLOUTS):
            new = releases[(rollout + 1) % 2]
            deployed.deploy(new.user_config)
            wait_until(lambda d=new.digest: deployed.ready().get("checkpoint") == d, f"rollout {rollout}", 60)
            time.sleep(0.5)
    answers = [each for future in futures for each in future.result()]
    assert {status for status, _ in answers} == {200}
    releases_by_digest = {each.digest: each for each in releases}
    for _, body in answers:
        expected = releases_by_digest[body["checkpoint"]]
        assert body["gallery_version"] == expected.version
        assert len(body["hits"]) == 3
        assert {hit["photo_id"] for hit in body["hits"]} <= expected.ids
    assert {body["checkpoint"] for _, body in answers} == set(releases_by_digest)
    print(f"{len(answers)} requests over {ROLLOUTS} rollouts")


def test_invalid_release_is_refused_and_the_old_one_stays(
    deployed: Deployed, releases: list[Release]
) -> None:
    before = deployed.ready()
    mixed = {**releases[0].user_config, "gallery": releases[1].gallery, "version": releases[1].version}
    deployed.deploy(mixed)
    wait_until(lambda: deployed.ready().get("refused") is not None, "the refusal", 60)
    after = deployed.ready()
    assert {**after, "refused": None} == before
    assert "made with checkpoint" in after["refused"]
    assert deployed.http.post("/v1/search", json={"text": "a red disc"}).status_code == 200

    deployed.kill_replicas("Ingress")  # the new one has not served the old release
    wait_until(lambda: deployed.ready() == after, "the restart of the ingress", 60)
    assert deployed.http.post("/v1/search", json={"text": "a red disc"}).status_code == 200


def test_sketch_load_scales_only_the_sketch_deployment(deployed: Deployed, releases: list[Release]) -> None:
    deployed.deploy(releases[0].user_config)
    wait_until(lambda: deployed.replicas("SketchReplica") == 1, "one replica", 60)
    with concurrent_clients(deployed.http, 12, None) as futures:
        wait_until(lambda: deployed.replicas("SketchReplica") == 2, "scaling up", 90)
        assert deployed.replicas("TextReplica") == 1
    wait_until(lambda: deployed.replicas("SketchReplica") == 1, "scaling down", 90)
    assert deployed.replicas("TextReplica") == 1
    assert {status for future in futures for status, _ in future.result()} == {200}
