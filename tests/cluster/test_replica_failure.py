"""Replicas killed under load, two of each kind: only requests of a killed ingress fail."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.endpoint.sides import ROOT, Row, load_command, make_world, serving

CLIENTS, KILL_INTERVAL_S, RECOVERY_TIMEOUT_S = 8, 15, 30
KINDS = ("Ingress", "SketchReplica", "TextReplica", "FusionReplica")


@pytest.fixture(scope="module")
def two_of_each(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Its URL, and the process id above its replicas."""
    folder = tmp_path_factory.mktemp("kill")
    actor_options = {"num_cpus": 0.2}  # two of each kind fit two cores
    part_settings = {
        "options": {
            "autoscaling_config": {"min_replicas": 2, "max_replicas": 2},
            "ray_actor_options": actor_options,
        }
    }
    settings = {part: part_settings for part in ("ingress", "sketch", "text", "fusion")}
    config = folder / "config.yaml"
    config.write_text(json.dumps(settings))
    with serving("serve_run", make_world(str(folder), "smoke", 200), "--config", str(config)) as running:
        yield running


def replicas(process: int, kind: str) -> list[psutil.Process]:
    below = psutil.Process(process).children(recursive=True)
    return [each for each in below if f":{kind}" in command_line(each)]


def command_line(process: psutil.Process) -> str:
    """The command line; empty for a killed process."""
    try:
        return " ".join(process.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return ""


def kill_one_of_each(process: int) -> dict[str, float]:
    """Kill one replica of each kind in turn; the seconds until there were two again."""
    killed: dict[str, tuple[float, int]] = {}
    recovery_s: dict[str, float] = {}
    start = time.monotonic()
    for position, kind in enumerate(KINDS):
        while time.monotonic() < start + position * KILL_INTERVAL_S:
            record_recovery(process, killed, recovery_s)
        victim = replicas(process, kind)[0]
        killed[kind] = (time.monotonic(), victim.pid)
        victim.send_signal(signal.SIGKILL)
    while (
        len(recovery_s) < len(KINDS)
        and time.monotonic() < start + len(KINDS) * KILL_INTERVAL_S + RECOVERY_TIMEOUT_S
    ):
        record_recovery(process, killed, recovery_s)
    return recovery_s


def record_recovery(process: int, killed: dict[str, tuple[float, int]], recovery_s: dict[str, float]) -> None:
    for kind, (when, pid) in killed.items():
        alive = [each for each in replicas(process, kind) if each.pid != pid]
        if kind not in recovery_s and len(alive) == 2:
            recovery_s[kind] = round(time.monotonic() - when, 1)
    time.sleep(0.5)


@pytest.mark.endurance
@pytest.mark.slow(reason="minutes of load, on a cluster of its own")
@pytest.mark.timeout(400)
def test_killed_replicas_fail_only_requests_of_the_ingress(two_of_each: tuple[str, int]) -> None:
    url, process = two_of_each
    seconds = len(KINDS) * KILL_INTERVAL_S + RECOVERY_TIMEOUT_S
    command = load_command(url, "--clients", CLIENTS, "--seconds", seconds, "--warm-up", 3)
    clients = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    time.sleep(8)
    recovery_s = kill_one_of_each(process)
    stdout, _ = clients.communicate(timeout=seconds + 60)
    results: Row = json.loads(stdout.splitlines()[-1])
    print(recovery_s, results["statuses"], results["p99_ms"], results["by_second"])
    assert set(results["statuses"]) <= {"200", "503"}
    assert results["statuses"].get("503", 0) <= CLIENTS  # of the ingress; others are retried
    assert set(recovery_s) == set(KINDS), f"not recovered within {RECOVERY_TIMEOUT_S} s"
    assert max(recovery_s.values()) <= RECOVERY_TIMEOUT_S
    assert min(results["by_second"][-5:]) > 0
