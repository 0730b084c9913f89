"""`python -m tests.chaos.soak --minutes 60` loads the endpoint while releases change and replicas die.

Searches arrive at `--share` of the capacity, which is measured first, in an open loop. Every
`--publish-every` seconds a version of the other gallery is published and deployed; every `--kill-every`
seconds a replica is killed, of each kind in turn. It passes if each answer is of one release, the only 5xx
are searches in flight when a replica was killed, and memory does not grow. OUT gets log.jsonl and soak.png;
the last line of standard output is a summary as JSON. Exit code 1 if it fails.
"""

import argparse
import itertools
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

import tests.conftest  # noqa: F401 - it sets the environment of Ray, before any import of Ray
from benchmarks.endpoint.memory import MIB
from tests.chaos.endpoint import LOST_CONNECTION, Endpoint, searching, serves
from tests.chaos.invariants import is_of_one_release
from tests.chaos.plan import REPLICAS
from tests.chaos.soak_record import Record, Search, plot, write_log
from tests.chaos.world import World, running_world
from tests.cluster.application import sketch_png
from tests.conftest import wait_until

NUM_REPLICAS = 2  # of each kind, so that one is left
CAPACITY_S, WARM_UP_S, TIMEOUT_S, DEPLOY_TIMEOUT_S = 20, 5, 60, 120
MAX_THREADS = 64  # searches in flight


class Soak:
    """The load, the kills and the deploys of one run."""

    def __init__(self, world: World, args: argparse.Namespace) -> None:
        self.world, self.args = world, args
        self.endpoint, self.record, self.stop = Endpoint(world, NUM_REPLICAS), Record(), threading.Event()

    def run(self) -> tuple[Record, float]:
        """The record, and the searches per second that were sent."""
        url = str(self.endpoint.deployed.http.base_url)
        rate = round(self.args.share * self._capacity(url), 1)
        self.record = Record()
        parts = (lambda: self._search(url, rate), self._kill, self._deploy, self._sample)
        with ThreadPoolExecutor(len(parts)) as pool:
            running = [pool.submit(part) for part in parts]
            self.stop.wait(self.args.minutes * 60)
            self.stop.set()
        for part in running:
            part.result()
        return self.record, rate

    def _capacity(self, url: str) -> float:
        with searching(url, clients=8, pause_s=0) as answers:
            time.sleep(WARM_UP_S)
            before = len(answers)
            time.sleep(CAPACITY_S)
            return (len(answers) - before) / CAPACITY_S

    def _search(self, url: str, rate: float) -> None:
        """Send searches at random times of that mean rate."""
        draw, due = random.Random(0), self.record.now
        limits = httpx.Limits(max_connections=MAX_THREADS)
        with (
            httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False, limits=limits) as client,
            ThreadPoolExecutor(MAX_THREADS) as pool,
        ):
            while not self.stop.wait(max(0, due - self.record.now)):
                pool.submit(self._send, client, due)
                due += draw.expovariate(rate)

    def _send(self, client: httpx.Client, due: float) -> None:
        files = {"sketch": ("s.png", _SKETCH)}
        try:
            answer = client.post("/v1/search", data={"k": "3", "text": "a red disc"}, files=files)
            status = answer.status_code
            wrong = status == 200 and not is_of_one_release(answer.json(), self.endpoint.releases)
        except httpx.TransportError:
            status, wrong = LOST_CONNECTION, False
        self.record.searches.append(Search(due, self.record.now, status, wrong))

    def _kill(self) -> None:
        """Kill the oldest replica of each kind in turn."""
        for kind in itertools.cycle(REPLICAS):
            if self.stop.wait(self.args.kill_every):
                return
            victim = min(self.world.processes(kind), key=psutil.Process.create_time)
            self.record.kills.append((self.record.now, kind))
            victim.kill()

    def _deploy(self) -> None:
        """Publish a version of the other gallery, and deploy it."""
        for target in itertools.cycle(reversed(self.endpoint.initial)):
            if self.stop.wait(self.args.publish_every):
                return
            start, published = self.record.now, self.endpoint.publish(target)
            self.endpoint.deploy(target)
            app = self.endpoint.deployed
            wait_until(lambda: serves(app, published), "the new release", DEPLOY_TIMEOUT_S)  # noqa: B023 - used now
            self.record.deploys.append((start, self.record.now, published.version))

    def _sample(self) -> None:
        while not self.stop.wait(1):
            self.record.mib.append((self.record.now, sum(self._replica_mib())))

    def _replica_mib(self) -> Iterator[float]:
        for process in self.world.processes("ServeReplica"):
            with suppress(psutil.NoSuchProcess):
                yield process.memory_info().rss / MIB


def main(args: argparse.Namespace) -> int:
    """Run, write the log and the plot; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the cluster stops
    args.out.mkdir(parents=True, exist_ok=True)
    with running_world() as world:
        record, rate = Soak(world, args).run()
    write_log(record, args.out / "log.jsonl")
    plot(record, args.out / "soak.png")
    summary = record.summary(rate)
    print(json.dumps(summary))
    return 1 if summary["reasons"] else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of load (%(default)s)")
    parser.add_argument("--share", type=float, default=0.7, help="of the capacity (%(default)s)")
    parser.add_argument("--publish-every", type=float, default=300, help="seconds (%(default)s)")
    parser.add_argument("--kill-every", type=float, default=120, help="seconds (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="folder (%(default)s)")
    return parser


_SKETCH = sketch_png()

if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
