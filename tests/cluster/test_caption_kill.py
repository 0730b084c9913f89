"""A captioning run that is killed outright repeats no call that was paid for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stbir.data.shards import open_shards
from tests.conftest import ROOT, wait_until
from tests.ray_jobs.chat_server import KEY, ChatServer, caption_of
from tests.ray_jobs.test_caption import arguments, row, rows_of, write

PHOTOS = 48


@pytest.mark.endurance
@pytest.mark.slow(reason="starts Ray by itself three times, as a user does")
@pytest.mark.timeout(300)
def test_kills_cost_no_call_twice(tmp_path: Path) -> None:
    shards, out = write(tmp_path / "in", [row(number) for number in range(PHOTOS)], 16), tmp_path / "out"
    with ChatServer(delay=0.2).running() as server:
        server.plan = {number: ["cut"] for number in range(0, PHOTOS, 5)}
        for goal in (5, 30):
            kill_after(server, goal, shards, out)
            assert not (out / "manifest.json").exists()
        before = server.paid.total()
        assert before < PHOTOS
        last = start(server, shards, out)
        _, stderr = last.communicate(timeout=120)
        assert last.returncode == 0, stderr
        # Each first answer once, and once more each of those that could not be used.
        assert set(server.paid.values()) == {1}
        assert server.paid.total() == PHOTOS + len(server.plan)
    assert [each["text"] for each in rows_of(out)] == [caption_of(number) for number in range(PHOTOS)]
    counts = open_shards(str(out)).manifest.counts
    assert counts["captioned"] + counts["already_there"] == counts["in"] == PHOTOS
    assert counts["captioned"] >= PHOTOS - before


def start(server: ChatServer, shards: object, out: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "ray_jobs/caption.py", *arguments(server, shards, out, "--in-flight", 3)],
        cwd=ROOT,
        env={**os.environ, "STBIR_CAPTION_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after(server: ChatServer, answers: int, shards: object, out: Path) -> None:
    """Start the command and SIGKILL it with calls under way, once so many answers were paid for and kept.

    What is on its way at that moment is told to nobody: the endpoint sees that its caller is gone.
    """
    job = start(server, shards, out)
    wait_until(lambda: server.paid.total() >= answers or job.poll() is not None, f"{answers} answers", 90)
    assert job.poll() is None, job.communicate()[1]
    server.gate.clear()
    wait_until(lambda: kept(out) == server.paid.total(), "the keeping of all answers")
    wait_until(lambda: server.at_once > 0, "a call under way")
    started = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.communicate()
    _, left = psutil.wait_procs(started, timeout=20)
    for process in left:
        process.kill()
    server.gate.set()
    wait_until(lambda: server.at_once == 0, "the end of the calls under way")


def kept(out: Path) -> int:
    """Answers on disk."""
    return sum(len(json.loads(file.read_text())["answers"]) for file in out.glob("answers/*/*/*/*.json"))
