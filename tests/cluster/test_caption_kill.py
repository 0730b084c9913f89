"""A captioning run that is killed with SIGKILL repeats no delivered call."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stbir.data.shards import open_shards
from tests.conftest import ROOT, wait_until
from tests.ray_jobs.chat_server import KEY, ChatServer, caption_text
from tests.ray_jobs.test_caption import arguments, read_rows, row, write_shards

PHOTOS = 48


@pytest.mark.endurance
@pytest.mark.slow(reason="starts Ray three times, as a user does")
@pytest.mark.timeout(300)
def test_kills_repeat_no_delivered_call(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "in", [row(number) for number in range(PHOTOS)], 16)
    out = tmp_path / "out"
    with ChatServer(delay_s=0.2).running() as server:
        server.plan = {number: ["cut"] for number in range(0, PHOTOS, 5)}
        for goal in (5, 30):
            kill_after(server, goal, shards, out)
            assert not (out / "manifest.json").exists()
        before = server.delivered.total()
        assert before < PHOTOS
        run = start(server, shards, out)
        _, stderr = run.communicate(timeout=120)
        assert run.returncode == 0, stderr
        # One first answer per photo, and a second one after each invalid answer.
        assert set(server.delivered.values()) == {1}
        assert server.delivered.total() == PHOTOS + len(server.plan)
    assert [row["text"] for row in read_rows(out)] == [caption_text(number) for number in range(PHOTOS)]
    counts = open_shards(str(out)).manifest.counts
    assert counts["captioned"] + counts["already_there"] == counts["in"] == PHOTOS
    assert counts["captioned"] >= PHOTOS - before


def start(server: ChatServer, shards: object, out: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "ray_jobs/caption.py", *arguments(server, shards, out, "--concurrency", 3)],
        cwd=ROOT,
        env={**os.environ, "STBIR_CAPTION_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after(server: ChatServer, count: int, shards: object, out: Path) -> None:
    """Start the command and kill it with active calls, once so many answers are delivered and stored.

    Answers of the active calls are not delivered: the endpoint sees that its caller has disconnected.
    """
    job = start(server, shards, out)
    wait_until(lambda: server.delivered.total() >= count or job.poll() is not None, f"{count} answers", 90)
    assert job.poll() is None, job.communicate()[1]
    server.gate.clear()
    wait_until(lambda: stored_count(out) == server.delivered.total(), "all answers to be stored")
    wait_until(lambda: server.active_calls > 0, "an active call")
    started = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.communicate()
    _, alive = psutil.wait_procs(started, timeout=20)
    for process in alive:
        process.kill()
    server.gate.set()
    wait_until(lambda: server.active_calls == 0, "the end of the active calls")


def stored_count(out: Path) -> int:
    """Number of answers on disk."""
    return sum(len(json.loads(file.read_text())["answers"]) for file in out.glob("answers/*/*/*/*.json"))
