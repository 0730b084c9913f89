"""Rollouts: which release is active meanwhile, retries, and the report of a failure."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from serve.deployments.local_handle import LocalResponses
from serve.messages import Release
from serve.rollout.app_status import AppStatus, AppStatusWatch
from serve.rollout.records import DeployRecord, ReleaseRecords
from serve.rollout.release import Preloader, resolve
from serve.rollout.rollout import Deploy, Rollout
from stbir.errors import InputError
from stbir.model import checkpoint
from tests.serve.local import MemoryStore

BROKEN_VERSION = 99


class FakeDeployments:
    """All three deployments, the records and the status of one application.

    A test may replace `on_check`, `on_load`, `versions` and `published`, the published ones, and `deploy`.
    """

    def __init__(self) -> None:
        self.versions: dict[str, int | None] = {"old": 1, "new": 2}
        self.published: dict[str, int] = {}  # of a gallery in place of `versions`
        self.on_check: Callable[[Release], Awaitable[dict[str, Any]]] = self.describe
        self.on_load: Callable[[Release], Awaitable[None]] = self.load
        self.loaded: list[Release] = []
        self.records, self.deployed_at_s = ReleaseRecords(MemoryStore(), "ada@head"), 1.0
        self.user_config: dict[str, Any] | None = None  # in the deployed file

    def deploy(self, deployed_at_s: float, name: str, **galleries: int | None) -> None:
        """What Serve's controller reports from now on; an ingress hears of it by `reconfigure` or polling."""
        self.deployed_at_s, self.user_config = deployed_at_s, user_config(name, **galleries)

    async def load(self, release: Release) -> None:
        self.loaded.append(release)

    def broadcast(self, name: str, release: Release) -> LocalResponses:
        assert name == "load"
        return LocalResponses([self.on_load(release) for _ in range(2)])

    def ingress(self, gallery: str = "default") -> Rollout:
        """The rollout of a gallery in one more ingress replica."""
        watch = AppStatusWatch(lambda: AppStatus(self.deployed_at_s, frozenset(), self.user_config))
        return Rollout(self, self, self, self.records.of_gallery(gallery), watch)

    async def describe(self, release: Release) -> dict[str, Any]:
        return {"model": {"checkpoint": release.digest}, "gallery": None}

    async def _resolve(self, config: dict[str, Any]) -> Release:
        name, gallery = config["checkpoint"], config["gallery"]
        if name not in self.versions:
            raise InputError(f"{name}: no checkpoint here")
        version = self.published.get(gallery, self.versions[name])
        if config["version"] == BROKEN_VERSION:
            raise InputError(f"{gallery}: version {BROKEN_VERSION} cannot be opened")
        return Release(f"{name}/step-1", f"sha256:{name}", gallery, config["version"] or version)

    def __getattr__(self, name: str) -> Any:
        methods = {
            "resolve": self._resolve,
            "check": lambda release, sketch, text: self.on_check(release),
            "canary": lambda uri: uri,
        }

        class Method:
            remote = staticmethod(methods[name])

        return Method


def user_config(name: str, **galleries: int | None) -> dict[str, Any]:
    """`galleries`: the versions of others than the default one, by name."""
    config: dict[str, Any] = {"checkpoint": name, "gallery": "photos", "version": None}
    others = {each: {"gallery": each, "version": version} for each, version in galleries.items()}
    return {**config, "galleries": others} if others else config


async def started_rollout(
    deployments: FakeDeployments, name: str = "old", gallery: str = "default", **galleries: int | None
) -> Rollout:
    rollout = deployments.ingress(gallery)
    await rollout.start(user_config(name, **galleries))
    return rollout


def active_digest(rollout: Rollout) -> str:
    assert rollout.active is not None
    return rollout.active.release.digest


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_previous_release_is_active_until_the_canary_query_is_answered() -> None:
    async def scenario() -> None:
        deployments, loaded = FakeDeployments(), asyncio.Event()
        rollout = await started_rollout(deployments)

        async def slow_check(release: Release) -> dict[str, Any]:
            await loaded.wait()
            return await deployments.describe(release)

        deployments.on_check = slow_check
        await rollout.start(user_config("new"))
        await asyncio.sleep(0.02)
        assert active_digest(rollout) == "sha256:old"
        loaded.set()
        await wait_for(lambda: active_digest(rollout) == "sha256:new")
        assert rollout.failure is None

    asyncio.run(scenario())


def test_failed_rollout_keeps_the_previous_release_and_reports_the_error() -> None:
    async def scenario() -> None:
        deployments = FakeDeployments()
        rollout = await started_rollout(deployments)
        await rollout.start(user_config("nowhere"))
        await wait_for(lambda: rollout.failure is not None)
        assert active_digest(rollout) == "sha256:old"
        assert "nowhere: no checkpoint here" in str(rollout.failure)
        await rollout.start(user_config("new"))
        await wait_for(lambda: active_digest(rollout) == "sha256:new")
        assert rollout.failure is None

    asyncio.run(scenario())


def test_failed_rollout_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.rollout.rollout.FAILURE_RETRY_S", 0.01)

    async def scenario() -> None:
        deployments = FakeDeployments()
        rollout = await started_rollout(deployments)
        await rollout.start(user_config("missing"))
        await wait_for(lambda: rollout.failure is not None)
        deployments.versions["missing"] = 3
        await wait_for(lambda: active_digest(rollout) == "sha256:missing")
        assert rollout.failure is None

    asyncio.run(scenario())


def test_late_ingress_serves_the_release_in_force_while_the_newest_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serve.rollout.rollout.FAILURE_RETRY_S", 0.01)

    async def scenario() -> None:
        deployments = FakeDeployments()
        await started_rollout(deployments)
        deployments.deployed_at_s = 2.0
        late = await started_rollout(deployments, "nowhere")
        assert active_digest(late) == "sha256:old"
        assert "nowhere: no checkpoint here" in str(late.failure)
        deployments.versions["nowhere"] = 4
        await wait_for(lambda: active_digest(late) == "sha256:nowhere")

    asyncio.run(scenario())


def active_version(rollout: Rollout) -> int | None:
    return None if rollout.active is None else rollout.active.release.version


def test_ingresses_that_start_around_a_publish_serve_one_release() -> None:
    async def scenario() -> None:
        deployments, rollouts = FakeDeployments(), []
        for version in (1, 2, 3):
            deployments.versions["old"] = version
            rollouts.append(await started_rollout(deployments))
        assert [active_version(rollout) for rollout in rollouts] == [1, 1, 1]
        assert deployments.records.active() == rollouts[0].active.release

    asyncio.run(scenario())


@pytest.mark.usefixtures("fast_polls")
def test_repeated_deploy_takes_up_the_published_gallery_everywhere() -> None:
    """Serve calls no replica if the same file is deployed again: the time of the deploy shows it."""

    async def scenario() -> None:
        deployments = FakeDeployments()
        rollouts = [await started_rollout(deployments) for _ in range(2)]
        deployments.versions["old"] = 2
        await asyncio.sleep(0.1)
        assert [active_version(rollout) for rollout in rollouts] == [1, 1]
        deployments.deployed_at_s = 2.0
        await wait_for(lambda: [active_version(rollout) for rollout in rollouts] == [2, 2])
        deployments.versions["old"] = 3
        assert active_version(await started_rollout(deployments)) == 2

    asyncio.run(scenario())


def test_deploy_that_returns_to_an_earlier_configuration_resolves_it_again() -> None:
    async def scenario() -> None:
        deployments = FakeDeployments()
        rollout = await started_rollout(deployments)
        for deployed_at_s, name in ((2.0, "new"), (3.0, "old")):
            deployments.deployed_at_s = deployed_at_s
            deployments.versions["old"] = 7
            await rollout.start(user_config(name))
            await wait_for(lambda name=name: active_digest(rollout) == f"sha256:{name}")
        assert active_version(rollout) == 7

    asyncio.run(scenario())


@pytest.fixture
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("app_status", "rollout"):
        monkeypatch.setattr(f"serve.rollout.{module}.POLL_S", 0.01)


def test_release_in_force_is_that_of_the_latest_deploy_whichever_ingress_ends_last() -> None:
    async def scenario() -> None:
        deployments, loaded = FakeDeployments(), asyncio.Event()
        await started_rollout(deployments)

        async def slow_check_of_new(release: Release) -> dict[str, Any]:
            if release.digest == "sha256:new":
                await loaded.wait()
            return await deployments.describe(release)

        deployments.on_check = slow_check_of_new
        deployments.versions["newest"] = 3
        deployments.deployed_at_s = 2.0
        slow = asyncio.create_task(started_rollout(deployments, "new"))
        await asyncio.sleep(0.02)
        deployments.deployed_at_s = 10.0
        latest = await started_rollout(deployments, "newest")
        loaded.set()
        assert active_digest(await slow) == "sha256:new"
        assert deployments.records.active() == deployments.records.newest() == latest.active.release

    asyncio.run(scenario())


def test_late_ingress_that_falls_back_leaves_the_release_of_a_later_deploy_in_force() -> None:
    async def scenario() -> None:
        deployments, loaded, is_old_checked = FakeDeployments(), asyncio.Event(), asyncio.Event()
        await started_rollout(deployments)

        async def slow_check_of_old(release: Release) -> dict[str, Any]:
            if release.digest == "sha256:old":
                is_old_checked.set()
                await loaded.wait()
            return await deployments.describe(release)

        deployments.on_check = slow_check_of_old
        deployments.deployed_at_s = 2.0
        late = asyncio.create_task(started_rollout(deployments, "nowhere"))
        await is_old_checked.wait()
        deployments.deployed_at_s = 3.0
        newest = await started_rollout(deployments, "new")
        loaded.set()
        assert active_digest(await late) == "sha256:old"
        assert deployments.records.active() == newest.active.release

    asyncio.run(scenario())


@pytest.mark.usefixtures("fast_polls")
def test_ingress_follows_a_deploy_whose_reconfigure_does_not_arrive() -> None:
    async def scenario() -> None:
        deployments = FakeDeployments()
        deployments.deploy(1.0, "old")
        rollouts = [await started_rollout(deployments) for _ in range(2)]
        deployments.versions["old"] = 7  # published; no deploy asks for it
        deployments.deploy(2.0, "new")
        await wait_for(lambda: {active_digest(rollout) for rollout in rollouts} == {"sha256:new"})
        await rollouts[0].start(user_config("new"))
        await asyncio.sleep(0.05)
        assert deployments.records.of_deploy(Deploy(user_config("old"), 2.0).key) is None

    asyncio.run(scenario())


@pytest.mark.usefixtures("fast_polls")
def test_late_reconfigure_of_an_earlier_deploy_is_that_of_the_latest() -> None:
    async def scenario() -> None:
        deployments = FakeDeployments()
        deployments.deploy(1.0, "old")
        rollout = await started_rollout(deployments)
        deployments.versions["newest"] = 3
        deployments.deploy(3.0, "newest")
        await rollout.start(user_config("new"))
        await wait_for(lambda: active_digest(rollout) == "sha256:newest")
        assert deployments.records.of_deploy(Deploy(user_config("new"), 3.0).key) is None

    asyncio.run(scenario())


@pytest.mark.usefixtures("fast_polls")
def test_newer_deploy_does_not_wait_for_the_retry_of_a_failed_one() -> None:
    async def scenario() -> None:
        deployments = FakeDeployments()
        rollout = await started_rollout(deployments)
        deployments.deploy(2.0, "nowhere")
        await wait_for(lambda: rollout.failure is not None)
        deployments.deploy(3.0, "new")
        await wait_for(lambda: active_digest(rollout) == "sha256:new")

    asyncio.run(scenario())


def test_release_is_loaded_by_all_replicas_before_searches_name_it() -> None:
    async def scenario() -> None:
        deployments, loaded = FakeDeployments(), asyncio.Event()
        rollout = await started_rollout(deployments)
        assert deployments.loaded == [rollout.active.release] * 6  # two replicas of three deployments

        async def slow_load(release: Release) -> None:
            await loaded.wait()

        deployments.on_load = slow_load
        await rollout.start(user_config("new"))
        await asyncio.sleep(0.02)
        assert active_digest(rollout) == "sha256:old"
        loaded.set()
        await wait_for(lambda: active_digest(rollout) == "sha256:new")

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [OSError("disk full"), ActorDiedError()])
def test_replica_that_cannot_load_a_release_fails_the_rollout_unless_it_died(error: Exception) -> None:
    async def scenario() -> None:
        deployments = FakeDeployments()
        rollout = await started_rollout(deployments)

        async def failing_load(release: Release) -> None:
            raise error

        deployments.on_load = failing_load
        await rollout.start(user_config("new"))
        if isinstance(error, ActorDiedError):
            await wait_for(lambda: active_digest(rollout) == "sha256:new")
        else:
            await wait_for(lambda: rollout.failure is not None)
            assert active_digest(rollout) == "sha256:old"
            assert "disk full" in str(rollout.failure)

    asyncio.run(scenario())


def test_record_of_a_deploy_tells_what_it_resolved_to_when_and_by_whom() -> None:
    async def scenario() -> None:
        deployments = FakeDeployments()
        await started_rollout(deployments)
        record = deployments.records.of_deploy(Deploy(user_config("old"), 1.0).key)
        assert record is not None
        assert record.release == Release("old/step-1", "sha256:old", "photos", 1)
        assert (record.built_by, record.deployed_at) == ("ada@head", "1970-01-01T00:00:01+00:00")
        assert datetime.fromisoformat(record.resolved_at).year > 2000

    asyncio.run(scenario())


def test_failure_of_the_first_release_is_raised() -> None:
    with pytest.raises(InputError, match="nowhere"):
        asyncio.run(started_rollout(FakeDeployments(), "nowhere"))


def test_newer_rollout_replaces_one_in_progress() -> None:
    async def scenario() -> None:
        deployments, loaded = FakeDeployments(), asyncio.Event()
        deployments.versions["newest"] = 3
        rollout = await started_rollout(deployments)

        async def slow_check_of_new(release: Release) -> dict[str, Any]:
            if release.digest == "sha256:new":
                await loaded.wait()
            return await deployments.describe(release)

        deployments.on_check = slow_check_of_new
        await rollout.start(user_config("new"))
        await rollout.start(user_config("newest"))
        await wait_for(lambda: active_digest(rollout) == "sha256:newest")
        loaded.set()
        await asyncio.sleep(0.02)
        assert active_digest(rollout) == "sha256:newest"

    asyncio.run(scenario())


def test_gallery_published_later_is_activated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.rollout.rollout.GALLERY_RETRY_S", 0.01)

    async def scenario() -> None:
        deployments = FakeDeployments()
        deployments.versions["old"] = None
        rollout = await started_rollout(deployments)
        await asyncio.sleep(0.05)
        assert rollout.active is not None
        assert rollout.active.release.version is None
        deployments.versions["old"] = 1
        await wait_for(lambda: rollout.active is not None and rollout.active.release.version == 1)

    asyncio.run(scenario())


def test_canary_query_is_retried_while_a_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.rollout.rollout.BACKPRESSURE_RETRY_S", 0.001)

    async def scenario() -> None:
        deployments, errors = FakeDeployments(), [BackPressureError(1, 1) for _ in range(3)]

        async def failing_check(release: Release) -> dict[str, Any]:
            if errors:
                raise errors.pop()
            return await deployments.describe(release)

        deployments.on_check = failing_check
        assert active_digest(await started_rollout(deployments)) == "sha256:old"
        assert errors == []

    asyncio.run(scenario())


@pytest.mark.usefixtures("fast_polls")
def test_rollback_of_one_gallery_moves_no_other() -> None:
    """Three ingresses, publishes in both galleries between their starts, two more deploys."""

    async def scenario() -> None:
        deployments = FakeDeployments()
        rollouts: dict[str, list[Rollout]] = {"shoes": [], "chairs": []}
        deployments.deploy(1.0, "old", shoes=None, chairs=None)
        for number in range(3):
            deployments.published = {"shoes": 5 + number, "chairs": 7 + number}
            for name, of_gallery in rollouts.items():
                of_gallery.append(await started_rollout(deployments, gallery=name))

        async def wait_for_versions(shoes: int, chairs: int) -> None:
            expected = {"shoes": {shoes}, "chairs": {chairs}}
            await wait_for(
                lambda: {n: set(map(active_version, each)) for n, each in rollouts.items()} == expected
            )

        await wait_for_versions(5, 7)
        deployments.deploy(2.0, "old", shoes=4, chairs=None)
        await wait_for_versions(4, 7)
        late = [await started_rollout(deployments, gallery=name) for name in ("shoes", "chairs")]
        assert [active_version(each) for each in late] == [4, 7]
        await asyncio.sleep(0.05)
        await wait_for_versions(4, 7)
        deployments.deploy(3.0, "old", shoes=4, chairs=None)  # the same file again takes up what is published
        await wait_for_versions(4, 9)
        assert {each.gallery for each in deployments.records.releases_in_force()} == {"shoes", "chairs"}

    asyncio.run(scenario())


def test_a_new_checkpoint_is_that_of_every_gallery() -> None:
    async def scenario() -> None:
        deployments = FakeDeployments()
        for gallery in ("default", "shoes"):
            rollout = await started_rollout(deployments, gallery=gallery, shoes=3)
            deployments.deployed_at_s += 1
            await rollout.start(user_config("new", shoes=3))
            await wait_for(lambda rollout=rollout: active_digest(rollout) == "sha256:new")
        assert deployments.records.checkpoints_in_force() == {"new/step-1"}

    asyncio.run(scenario())


def test_gallery_that_fails_at_the_start_leaves_the_others_and_is_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serve.rollout.rollout.FAILURE_RETRY_S", 0.01)

    async def scenario() -> None:
        deployments = FakeDeployments()
        for name, version in (("shoes", BROKEN_VERSION), ("chairs", None)):  # it fails; it is not deployed
            galleries = {} if version is None else {name: version}
            rollout = await started_rollout(deployments, "old", name, **galleries)
            assert rollout.active is None
            assert rollout.failure is not None
            await rollout.start(user_config("old", **{name: 3}))
            await wait_for(lambda rollout=rollout: active_version(rollout) == 3)

    asyncio.run(scenario())


def test_resolve_pins_the_checkpoint_and_the_gallery_version(checkpoint_uri: str, gallery_uri: str) -> None:
    release = resolve({"checkpoint": checkpoint_uri, "gallery": gallery_uri})
    assert (release.checkpoint, release.digest) == checkpoint.resolve_pinned(checkpoint_uri)
    assert isinstance(release.version, int)
    config = {"checkpoint": release.checkpoint, "gallery": release.gallery, "version": release.version}
    assert resolve(config) == release


def activate(records: ReleaseRecords, release: Release) -> None:
    records.add("1.0/old", DeployRecord.of(release, "ada@head", 1.0, {}))
    records.set_active("1.0/old")


def test_late_replica_loads_the_release_in_force_before_it_counts_as_running(
    checkpoint_uri: str, gallery_uri: str
) -> None:
    """And that of the newest deploy, but none that is only published, except for the first deploy."""
    records, loaded = ReleaseRecords(MemoryStore()), list[Release]()
    config = {"checkpoint": checkpoint_uri, "gallery": gallery_uri}
    asyncio.run(Preloader(loaded.append, records)(config))
    assert loaded == [resolve(config)]

    active, newest = (Release(name, f"sha256:{name}", "photos", 1) for name in ("old", "new"))
    activate(records, active)
    asyncio.run(Preloader(loaded.append, records)(config))
    assert loaded[1:] == [active]
    records.add("2.0/new", DeployRecord.of(newest, "ada@head", 2.0, {}))
    asyncio.run(Preloader(loaded.append, records)(config))
    assert loaded[2:] == [active, newest]


def test_late_replica_that_cannot_load_the_release_in_force_does_not_start() -> None:
    records = ReleaseRecords(MemoryStore())
    activate(records, Release("old/step-1", "sha256:old", "photos", 1))

    def load(release: Release) -> None:
        raise OSError("connection reset")

    with pytest.raises(OSError, match="connection reset"):
        asyncio.run(Preloader(load, records)({}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99 cannot be opened"),
        ({"version": "newest"}, "user_config: version"),
        ({"chekpoint": "x"}, "user_config: chekpoint"),
        ({"gallery": "nowhere", "version": 1}, "nowhere"),
    ],
)
def test_invalid_release_config_is_refused(
    checkpoint_uri: str, gallery_uri: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        resolve({"checkpoint": checkpoint_uri, "gallery": gallery_uri, **change})
    assert message in str(error.value)
