"""A replica of each kind killed under load, where there are two: nobody hears of it but who was in it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import yaml

from benchmarks.endpoint.sides import ROOT, Row, serving, world
from serve.settings import DEFAULT

CLIENTS, SECONDS, KILLED_AT_S = 8, 40, 5
WHOLE_WITHIN_S = 30
KINDS = ("Ingress", "SketchReplica", "TextReplica", "FusionReplica")


@pytest.fixture(scope="module")
def two_of_each(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Where it listens, and the process below which its replicas are."""
    folder = tmp_path_factory.mktemp("kill")
    settings = yaml.safe_load(DEFAULT.read_text())
    for part in ("ingress", "sketch", "text", "fusion"):
        options = settings[part]["options"]
        del options["autoscaling_config"]
        options["num_replicas"] = 2
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    with serving("ours", world(str(folder), "smoke", 200), "--config", str(config)) as running:
        yield running


def replicas(process: int, kind: str) -> list[psutil.Process]:
    below = psutil.Process(process).children(recursive=True)
    return [each for each in below if f":{kind}" in " ".join(each.cmdline())]


def load_while(url: str, process: int, kind: str) -> Row:
    """What clients see while one replica is killed."""
    command = [sys.executable, "-m", "benchmarks.endpoint.load", "--url", url, "--clients", str(CLIENTS)]
    command += ["--seconds", str(SECONDS), "--warm-up", "3"]
    clients = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    time.sleep(3 + KILLED_AT_S)
    replicas(process, kind)[0].send_signal(signal.SIGKILL)
    stdout, _ = clients.communicate(timeout=SECONDS + 60)
    row: Row = json.loads(stdout.splitlines()[-1])
    return row


@pytest.mark.slow(reason="forty seconds of load for each kind of replica, on a cluster of its own")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_replica_takes_its_requests_along_and_no_others(
    two_of_each: tuple[str, int], kind: str
) -> None:
    url, process = two_of_each
    assert len(replicas(process, kind)) == 2
    seen = load_while(url, process, kind)
    print(kind, seen["statuses"], seen["p99_ms"], seen["by_second"])
    assert set(seen["statuses"]) <= {"200", "503"}, seen
    assert seen["statuses"].get("503", 0) <= CLIENTS
    whole = seen["by_second"][KILLED_AT_S + WHOLE_WITHIN_S :]
    assert min(whole) > 0
    deadline = time.monotonic() + WHOLE_WITHIN_S
    while len(replicas(process, kind)) < 2:
        assert time.monotonic() < deadline, f"no second {kind} came back"
        time.sleep(0.5)
