"""The application under load on a real cluster: it goes over to other releases, grows and shrinks."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.cluster.application import Deployed, Release, asking, release
from tests.cluster.head import Head
from tests.conftest import free_port, wait_until

pytestmark = [
    pytest.mark.endurance,
    pytest.mark.slow(reason="a cluster of its own, under load"),
    pytest.mark.timeout(600),
]

SWAPS = 5


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
        app.deploy(releases[0].wanted)

        def up() -> bool:
            try:
                return bool(app.ready())
            except httpx.TransportError:
                return False

        wait_until(up, "the start of the application", 240)
        yield app


def test_five_changes_under_load_lose_and_mix_nothing(deployed: Deployed, releases: list[Release]) -> None:
    with asking(deployed.http, 4, "a red disc") as asked:
        for swap in range(SWAPS):
            new = releases[(swap + 1) % 2]
            deployed.deploy(new.wanted)
            wait_until(lambda d=new.digest: deployed.ready().get("checkpoint") == d, f"change {swap}", 60)
            time.sleep(0.5)
    answers = [each for one in asked for each in one.result()]
    assert {status for status, _ in answers} == {200}
    of = {each.digest: each for each in releases}
    for _, body in answers:
        told = of[body["checkpoint"]]
        assert body["gallery_version"] == told.version
        assert len(body["hits"]) == 3
        assert {hit["photo_id"] for hit in body["hits"]} <= told.ids
    assert {body["checkpoint"] for _, body in answers} == set(of)
    print(f"{len(answers)} requests over {SWAPS} changes")


def test_a_release_that_cannot_be_is_refused_and_the_old_one_goes_on(
    deployed: Deployed, releases: list[Release]
) -> None:
    before = deployed.ready()
    mixed = {**releases[0].wanted, "gallery": releases[1].gallery, "version": releases[1].version}
    deployed.deploy(mixed)
    wait_until(lambda: deployed.ready().get("refused") is not None, "the refusal", 60)
    after = deployed.ready()
    assert {**after, "refused": None} == before
    assert "made with checkpoint" in after["refused"]
    assert deployed.http.post("/v1/search", json={"text": "a red disc"}).status_code == 200

    deployed.lose("Ingress")  # the next one never saw the release before
    wait_until(lambda: deployed.ready() == after, "another ingress", 60)
    assert deployed.http.post("/v1/search", json={"text": "a red disc"}).status_code == 200


def test_under_sketches_the_sketch_tower_grows_and_shrinks_again_alone(
    deployed: Deployed, releases: list[Release]
) -> None:
    deployed.deploy(releases[0].wanted)
    wait_until(lambda: deployed.replicas("SketchReplica") == 1, "rest", 60)
    with asking(deployed.http, 12, None) as asked:
        wait_until(lambda: deployed.replicas("SketchReplica") == 2, "growth", 90)
        assert deployed.replicas("TextReplica") == 1
    wait_until(lambda: deployed.replicas("SketchReplica") == 1, "shrinking", 90)
    assert deployed.replicas("TextReplica") == 1
    assert {status for one in asked for status, _ in one.result()} == {200}
