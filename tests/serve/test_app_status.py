"""The status of the application: what Serve's controller reports, and how old it may be."""

import asyncio
import time
from threading import Event
from typing import Any

import pytest
from ray.serve.schema import ApplicationDetails

from serve.deployments.ingress import Ingress
from serve.rollout.app_status import AppStatus, AppStatusWatch, app_status
from tests.serve.test_rollout import wait_for

FIRST, SECOND = (AppStatus(time_s, frozenset()) for time_s in (1.0, 2.0))


def details(config: dict[str, Any] | None, **replica_states: str) -> ApplicationDetails:
    """What the controller reports of an application with a replica of each deployment."""
    deployments = {
        name: {
            "name": name,
            "status": "HEALTHY",
            "status_trigger": "CONFIG_UPDATE_COMPLETED",
            "message": "",
            "deployment_config": {"name": name},
            "target_num_replicas": 1,
            "required_resources": {},
            "replicas": [{"replica_id": "a", "state": state, "start_time_s": 0.0}],
        }
        for name, state in replica_states.items()
    }
    return ApplicationDetails(
        name="default",
        route_prefix="/",
        docs_path=None,
        status="RUNNING",
        message="",
        last_deployed_time_s=5.0,
        deployed_app_config=config,
        source="declarative",
        deployments=deployments,
        external_scaler_enabled=False,
    )


def test_status_has_time_and_configuration_of_the_deploy() -> None:
    user_config, name = {"checkpoint": "a", "version": None}, Ingress.__name__
    config = {"import_path": "serve.app:build", "deployments": [{"name": name, "user_config": user_config}]}
    states = {"Ingress": "RUNNING", "TextReplica": "UPDATING", "FusionReplica": "STARTING"}
    expected = AppStatus(5.0, frozenset({"Ingress", "TextReplica"}), user_config)
    assert app_status(details(config, **states)) == expected
    config["deployments"] = [{"name": name}, {"name": "TextReplica", "user_config": user_config}]
    assert app_status(details(config)) == app_status(details(None)) == AppStatus(5.0, frozenset())


def test_status_is_current_until_its_maximum_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from the request: a controller that hangs, or fails, leaves the last status."""
    monkeypatch.setattr("serve.rollout.app_status.MAX_AGE_S", 0.5)
    monkeypatch.setattr("serve.rollout.app_status.POLL_S", 0.01)
    go, is_stuck = Event(), False

    def read() -> AppStatus:
        if is_stuck and not go.wait(1):
            raise ConnectionError("no controller")
        return FIRST

    async def scenario() -> None:
        nonlocal is_stuck
        watch = AppStatusWatch(read)
        assert not watch.is_current
        await watch.refresh()
        await asyncio.sleep(0.7)
        assert watch.is_current
        is_stuck = True
        await wait_for(lambda: not watch.is_current)
        assert watch.status == FIRST
        go.set()
        await wait_for(lambda: watch.is_current)

    asyncio.run(scenario())


def test_answer_to_an_earlier_request_does_not_replace_that_to_a_later_one() -> None:
    is_first = True

    def read() -> AppStatus:
        nonlocal is_first
        if is_first:
            is_first = False
            time.sleep(0.1)
            return FIRST
        return SECOND

    async def scenario() -> None:
        watch = AppStatusWatch(read)
        first = asyncio.create_task(watch.refresh())
        await asyncio.sleep(0.02)
        await watch.refresh()
        await first
        assert watch.status == SECOND

    asyncio.run(scenario())
