"""Progress lines of a training run."""

import threading
from typing import Any

import pytest
from ray.exceptions import RayActorError

from ray_jobs.training.progress import print_progress


class LostQueue:
    """A queue whose actor dies after one line, as Ray ends on an interrupt."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = [{"warning": "something"}]

    def get(self, timeout: float) -> dict[str, Any]:
        if self.lines:
            return self.lines.pop()
        raise RayActorError


def test_a_lost_queue_ends_the_lines_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with print_progress(LostQueue()):  # type: ignore[arg-type]
        pass
    assert raised == []
    assert capsys.readouterr().err == "warning: something\n"
