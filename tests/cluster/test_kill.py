"""A replica of each kind killed under load, where there are two: nobody hears of it but who was in it."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.endpoint.sides import ROOT, Row, load_command, serving, world

CLIENTS, EVERY_S, WHOLE_WITHIN_S = 8, 15, 30
KINDS = ("Ingress", "SketchReplica", "TextReplica", "FusionReplica")


@pytest.fixture(scope="module")
def two_of_each(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Where it listens, and the process below which its replicas are."""
    folder = tmp_path_factory.mktemp("kill")
    small = {"num_cpus": 0.2}  # shares of which two of each kind fit two cores
    both = {
        "options": {"autoscaling_config": {"min_replicas": 2, "max_replicas": 2}, "ray_actor_options": small}
    }
    settings = {part: both for part in ("ingress", "sketch", "text", "fusion")}
    config = folder / "config.yaml"
    config.write_text(json.dumps(settings))
    with serving("serve_run", world(str(folder), "smoke", 200), "--config", str(config)) as running:
        yield running


def replicas(process: int, kind: str) -> list[psutil.Process]:
    below = psutil.Process(process).children(recursive=True)
    return [each for each in below if f":{kind}" in words(each)]


def words(process: psutil.Process) -> str:
    """Its command line; that of a killed one is empty."""
    try:
        return " ".join(process.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return ""


def kill_one_of_each(process: int) -> dict[str, float]:
    """Seconds until there were two again of each kind, killed one after the other."""
    killed: dict[str, tuple[float, int]] = {}
    back: dict[str, float] = {}
    start = time.monotonic()
    for place, kind in enumerate(KINDS):
        while time.monotonic() < start + place * EVERY_S:
            look(process, killed, back)
        victim = replicas(process, kind)[0]
        killed[kind] = (time.monotonic(), victim.pid)
        victim.send_signal(signal.SIGKILL)
    while len(back) < len(KINDS) and time.monotonic() < start + len(KINDS) * EVERY_S + WHOLE_WITHIN_S:
        look(process, killed, back)
    return back


def look(process: int, killed: dict[str, tuple[float, int]], back: dict[str, float]) -> None:
    for kind, (when, pid) in killed.items():
        alive = [each for each in replicas(process, kind) if each.pid != pid]
        if kind not in back and len(alive) == 2:
            back[kind] = round(time.monotonic() - when, 1)
    time.sleep(0.5)


@pytest.mark.endurance
@pytest.mark.slow(reason="minutes of load, on a cluster of its own")
@pytest.mark.timeout(400)
def test_killed_replicas_take_their_requests_along_and_no_others(two_of_each: tuple[str, int]) -> None:
    url, process = two_of_each
    seconds = len(KINDS) * EVERY_S + WHOLE_WITHIN_S
    command = load_command(url, "--clients", CLIENTS, "--seconds", seconds, "--warm-up", 3)
    clients = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    time.sleep(8)
    back = kill_one_of_each(process)
    stdout, _ = clients.communicate(timeout=seconds + 60)
    seen: Row = json.loads(stdout.splitlines()[-1])
    print(back, seen["statuses"], seen["p99_ms"], seen["by_second"])
    assert set(seen["statuses"]) <= {"200", "503"}
    assert seen["statuses"].get("503", 0) <= CLIENTS  # of the ingress: what the others lose is tried again
    assert set(back) == set(KINDS), f"not whole within {WHOLE_WITHIN_S} s"
    assert max(back.values()) <= WHOLE_WITHIN_S
    assert min(seen["by_second"][-5:]) > 0
