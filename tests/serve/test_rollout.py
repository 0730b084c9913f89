"""Rollouts: which release is active meanwhile, retries, and the report of a failure."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from serve.messages import Release
from serve.rollout.release import resolve
from serve.rollout.rollout import Rollout
from stbir.errors import InputError
from stbir.model import checkpoint


class FakeDeployments:
    """All three deployments. A test may replace `on_check`, `versions` and `previous`."""

    def __init__(self) -> None:
        self.versions: dict[str, int | None] = {"old": 1, "new": 2}
        self.on_check: Callable[[Release], Awaitable[dict[str, Any]]] = self.describe
        self.previous: Release | None = None

    async def describe(self, release: Release) -> dict[str, Any]:
        return {"model": {"checkpoint": release.digest}, "gallery": None}

    async def _last_release(self) -> Release | None:
        return self.previous

    async def _resolve(self, config: dict[str, Any]) -> Release:
        name = config["checkpoint"]
        if name not in self.versions:
            raise InputError(f"{name}: no checkpoint here")
        return Release(f"{name}/step-1", f"sha256:{name}", "photos", self.versions[name])

    def __getattr__(self, name: str) -> Any:
        methods = {
            "resolve": self._resolve,
            "last_release": self._last_release,
            "check": lambda release, sketch, text: self.on_check(release),
            "canary": lambda uri: uri,
        }

        class Method:
            remote = staticmethod(methods[name])

        return Method


def user_config(name: str) -> dict[str, Any]:
    return {"checkpoint": name, "gallery": "photos", "version": None}


async def started_rollout(deployments: FakeDeployments, name: str = "old") -> Rollout:
    rollout = Rollout(deployments, deployments, deployments)
    await rollout.start(user_config(name))
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


def test_new_ingress_falls_back_to_the_last_release_of_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.rollout.rollout.FAILURE_RETRY_S", 0.01)

    async def scenario() -> None:
        deployments = FakeDeployments()
        deployments.previous = Release("old/step-1", "sha256:old", "photos", 1)
        rollout = await started_rollout(deployments, "nowhere")
        assert active_digest(rollout) == "sha256:old"
        assert "nowhere: no checkpoint here" in str(rollout.failure)
        deployments.versions["nowhere"] = 4
        await wait_for(lambda: active_digest(rollout) == "sha256:nowhere")

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


def test_resolve_pins_the_checkpoint_and_the_gallery_version(checkpoint_uri: str, gallery_uri: str) -> None:
    release = resolve({"checkpoint": checkpoint_uri, "gallery": gallery_uri})
    assert (release.checkpoint, release.digest) == checkpoint.resolve_pinned(checkpoint_uri)
    assert isinstance(release.version, int)
    config = {"checkpoint": release.checkpoint, "gallery": release.gallery, "version": release.version}
    assert resolve(config) == release


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
