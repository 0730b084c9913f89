"""Scenario `serve`: a new release is published and deployed under searches, and meets a fault."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.chaos.faults import inject
from tests.chaos.invariants import Answer, check_answers
from tests.chaos.jobs import Outcome
from tests.chaos.plan import SERVE_PROCESSES, Step
from tests.chaos.world import World
from tests.cluster.application import Deployed, Release, publish_version, release, sketch_png
from tests.conftest import BUCKET, free_port, wait_until

CLIENTS, PAUSE_S = 2, 0.05
DEPLOY_S, DEPLOY_TIMEOUT_S, START_TIMEOUT_S = 8, 90, 240
DEPLOY_ATTEMPTS = 4
ERROR_STATUSES = (429, 503)
LOST_CONNECTION = 0  # as a status; only a lost proxy may cause it


@dataclass(frozen=True)
class FixedDeployment(Deployed):
    """Deployed with a fixed number of replicas of each kind; one leaves CPUs for jobs."""

    num_replicas: int = 1

    @property
    def settings(self) -> Path:
        file, number = self.folder / "settings.yaml", self.num_replicas
        options = {
            "autoscaling_config": {"min_replicas": number, "max_replicas": number},
            "ray_actor_options": {"num_cpus": 0.2},
        }
        kinds = ("ingress", "sketch", "text", "fusion")
        parts: dict[str, Any] = {name: {"options": options} for name in kinds}
        parts["fusion"]["cache"] = str(self.folder / "cache")
        file.write_text(yaml.safe_dump(parts))
        return file


class Endpoint:
    """The application, deployed when it is needed, and the releases that it may answer with."""

    def __init__(self, world: World, num_replicas: int = 1) -> None:
        self._world, self._num_replicas = world, num_replicas
        self.releases: dict[tuple[str, int], Release] = {}

    def serve(self, step: Step) -> Outcome:
        """Deploy a new version of the other gallery; the fault happens meanwhile."""
        app, target = self.deployed, self.initial[(step.number + 1) % 2]
        published = self.publish(target)
        with searching(str(app.http.base_url)) as answers, ThreadPoolExecutor(1) as pool:
            deploy = pool.submit(self.deploy, target)
            time.sleep(step.moment * DEPLOY_S)
            self._inject(step, target)
            deploy.result()
            wait_until(lambda: serves(app, published), "the new release", DEPLOY_TIMEOUT_S)
            count = len(answers)
            wait_until(lambda: _all_answered(answers[count:]), "the recovery", DEPLOY_TIMEOUT_S)
        is_proxy_lost = step.fault.target == "Proxy"
        statuses = (*ERROR_STATUSES, *([LOST_CONNECTION] if is_proxy_lost else []))
        violations = check_answers(answers, self.releases, statuses)
        return Outcome(violations, answers=dict(Counter(answer.status for answer in answers)))

    def _inject(self, step: Step, target: Release) -> None:
        if step.fault.kind == "publish_in_deploy":
            self.publish(target)
            return
        processes = self._world.processes(step.fault.target) if step.fault.target else []
        assert processes or step.fault.target not in SERVE_PROCESSES, f"no process {step.fault.target}"
        inject(step.fault.kind, processes, self._world.storage)

    def publish(self, of: Release) -> Release:
        """Publish the next version of a release's gallery, with photo ids of its own."""
        seed = len(self.releases)
        new = publish_version(of.checkpoint, of.gallery, f"version {seed}", seed)
        self.releases[new.digest, new.version] = new
        return new

    def deploy(self, target: Release) -> None:
        """Deploy the published version, again if Serve's controller cannot be reached."""
        config = {"checkpoint": target.checkpoint, "gallery": target.gallery}
        for attempt in range(DEPLOY_ATTEMPTS):
            try:
                self.deployed.deploy(config)
                return
            except subprocess.CalledProcessError:
                if attempt == DEPLOY_ATTEMPTS - 1:
                    raise
                time.sleep(2)

    @cached_property
    def initial(self) -> list[Release]:
        """The first releases of two galleries, each with a checkpoint of its own."""
        both = [release(f"s3://{BUCKET}/releases", seed) for seed in range(2)]
        self.releases |= {(each.digest, each.version): each for each in both}
        return both

    @cached_property
    def deployed(self) -> Deployed:
        """The application, once it serves the first release."""
        http = httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", timeout=30, trust_env=False)
        app = FixedDeployment(self._world.head, self._world.folder, self.initial[0], http, self._num_replicas)
        app.deploy(self.initial[0].user_config)
        wait_until(lambda: serves(app, self.initial[0]), "the start of the application", START_TIMEOUT_S)
        return app


def serves(app: Deployed, release: Release) -> bool:
    """Whether the application serves this release, or a later version of its gallery."""
    try:
        active = app.ready()
    except httpx.TransportError:  # the proxy is lost
        return False
    return active.get("checkpoint") == release.digest and active["gallery_version"] >= release.version


def _all_answered(answers: Sequence[Answer]) -> bool:
    """Whether each client has had two answers in succession."""
    last = answers[-2 * CLIENTS :]
    return len(last) == 2 * CLIENTS and all(answer.status == 200 for answer in last)


@contextmanager
def searching(url: str, clients: int = CLIENTS, pause_s: float = PAUSE_S) -> Iterator[list[Answer]]:
    """Clients that search in a loop within the block, and their answers, which grow."""
    stop, sketch, answers = threading.Event(), sketch_png(), list[Answer]()
    form = {"k": "3", "text": "a red disc"}

    def search(client: httpx.Client) -> Answer:
        try:
            answer = client.post("/v1/search", data=form, files={"sketch": ("s.png", sketch)})
        except httpx.TransportError as error:
            return Answer(LOST_CONNECTION, repr(error))
        return Answer(answer.status_code, answer.json())

    def search_until_stopped() -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while not stop.wait(pause_s):
                answers.append(search(client))

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(search_until_stopped) for _ in range(clients)]
        try:
            yield answers
        finally:
            stop.set()
            for client in running:
                client.result()
