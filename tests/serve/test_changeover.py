"""Going over to another release: what answers meanwhile, and what is said where it fails."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from serve.messages import Release
from serve.rollout import rollout
from serve.rollout.release import resolve
from serve.rollout.rollout import Changeover
from stbir.errors import InputError
from stbir.model import checkpoint


class Deployments:
    """All three: `resolve` and `check` answer by functions that a test may replace."""

    def __init__(self) -> None:
        self.versions: dict[str, int | None] = {"old": 1, "new": 2}
        self.checked: Callable[[Release], Awaitable[dict[str, Any]]] = self.told
        self.answered: Release | None = None

    async def told(self, release: Release) -> dict[str, Any]:
        return {"model": {"checkpoint": release.digest}, "gallery": None}

    async def _answering(self) -> Release | None:
        return self.answered

    async def _resolve(self, wanted: dict[str, Any]) -> Release:
        name = wanted["checkpoint"]
        if name not in self.versions:
            raise InputError(f"{name}: no checkpoint here")
        return Release(f"{name}/step-1", f"sha256:{name}", "photos", self.versions[name])

    def __getattr__(self, name: str) -> Any:
        answers = {
            "resolve": self._resolve,
            "answering": self._answering,
            "check": lambda release, sketch, text: self.checked(release),
            "canary": lambda uri: uri,
        }

        class Method:
            remote = staticmethod(answers[name])

        return Method


def of(name: str) -> dict[str, Any]:
    return {"checkpoint": name, "gallery": "photos", "version": None}


async def begun(deployments: Deployments, name: str = "old") -> Changeover:
    change = Changeover(deployments, deployments, deployments)
    await change.to(of(name))
    return change


def digest(change: Changeover) -> str:
    assert change.current is not None
    return change.current.release.digest


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


def test_the_old_one_answers_until_the_new_one_has_answered_a_canary() -> None:
    async def story() -> None:
        deployments, loaded = Deployments(), asyncio.Event()
        change = await begun(deployments)

        async def slow(release: Release) -> dict[str, Any]:
            await loaded.wait()
            return await deployments.told(release)

        deployments.checked = slow
        await change.to(of("new"))
        await asyncio.sleep(0.02)
        assert digest(change) == "sha256:old"
        loaded.set()
        await until(lambda: digest(change) == "sha256:new")
        assert change.refused is None

    asyncio.run(story())


def test_what_fails_leaves_the_old_one_and_says_why() -> None:
    async def story() -> None:
        deployments = Deployments()
        change = await begun(deployments)
        await change.to(of("nowhere"))
        await until(lambda: change.refused is not None)
        assert digest(change) == "sha256:old"
        assert "nowhere: no checkpoint here" in str(change.refused)
        await change.to(of("new"))
        await until(lambda: digest(change) == "sha256:new")
        assert change.refused is None

    asyncio.run(story())


def test_what_failed_is_tried_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "REFUSED_RETRY_S", 0.01)

    async def story() -> None:
        deployments = Deployments()
        change = await begun(deployments)
        await change.to(of("late"))
        await until(lambda: change.refused is not None)
        deployments.versions["late"] = 3
        await until(lambda: digest(change) == "sha256:late")
        assert change.refused is None

    asyncio.run(story())


def test_an_ingress_that_comes_after_a_refusal_goes_on_by_what_was_answered_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollout, "REFUSED_RETRY_S", 0.01)

    async def story() -> None:
        deployments = Deployments()
        deployments.answered = Release("old/step-1", "sha256:old", "photos", 1)
        change = await begun(deployments, "nowhere")
        assert digest(change) == "sha256:old"
        assert "nowhere: no checkpoint here" in str(change.refused)
        deployments.versions["nowhere"] = 4
        await until(lambda: digest(change) == "sha256:nowhere")

    asyncio.run(story())


def test_a_first_release_that_fails_ends_the_deployment() -> None:
    with pytest.raises(InputError, match="nowhere"):
        asyncio.run(begun(Deployments(), "nowhere"))


def test_the_newest_wish_counts() -> None:
    async def story() -> None:
        deployments, loaded = Deployments(), asyncio.Event()
        deployments.versions["newest"] = 3
        change = await begun(deployments)

        async def first_is_slow(release: Release) -> dict[str, Any]:
            if release.digest == "sha256:new":
                await loaded.wait()
            return await deployments.told(release)

        deployments.checked = first_is_slow
        await change.to(of("new"))
        await change.to(of("newest"))
        await until(lambda: digest(change) == "sha256:newest")
        loaded.set()
        await asyncio.sleep(0.02)
        assert digest(change) == "sha256:newest"

    asyncio.run(story())


def test_a_gallery_that_comes_later_is_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "MISSING_RETRY_S", 0.01)

    async def story() -> None:
        deployments = Deployments()
        deployments.versions["old"] = None
        change = await begun(deployments)
        await asyncio.sleep(0.05)
        assert change.current is not None
        assert change.current.release.version is None
        deployments.versions["old"] = 1
        await until(lambda: change.current is not None and change.current.release.version == 1)

    asyncio.run(story())


def test_a_full_service_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "FULL_RETRY_S", 0.001)

    async def story() -> None:
        deployments, left = Deployments(), [BackPressureError(1, 1) for _ in range(3)]

        async def full(release: Release) -> dict[str, Any]:
            if left:
                raise left.pop()
            return await deployments.told(release)

        deployments.checked = full
        assert digest(await begun(deployments)) == "sha256:old"
        assert left == []

    asyncio.run(story())


def test_a_wish_is_resolved_to_the_very_checkpoint_and_version(checkpoint_uri: str, gallery_uri: str) -> None:
    release = resolve({"checkpoint": checkpoint_uri, "gallery": gallery_uri})
    assert (release.checkpoint, release.digest) == checkpoint.pinned(checkpoint_uri)
    assert isinstance(release.version, int)
    again = {"checkpoint": release.checkpoint, "gallery": release.gallery, "version": release.version}
    assert resolve(again) == release


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 99}, "version 99 cannot be opened"),
        ({"version": "newest"}, "user_config: version"),
        ({"chekpoint": "x"}, "user_config: chekpoint"),
        ({"gallery": "nowhere", "version": 1}, "nowhere"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(
    checkpoint_uri: str, gallery_uri: str, change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        resolve({"checkpoint": checkpoint_uri, "gallery": gallery_uri, **change})
    assert says in str(error.value)
