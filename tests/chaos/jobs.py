"""Scenarios of jobs: a job meets a fault and is run again until it is done."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil

from benchmarks.endpoint.world import make_checkpoint
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from tests.chaos.faults import inject
from tests.chaos.invariants import check_captions, check_gallery, check_training
from tests.chaos.plan import Step
from tests.chaos.world import World
from tests.conftest import wait_until
from tests.ray_jobs.chat_server import KEY, ChatServer
from tests.ray_jobs.conftest import write_synthetic
from tests.ray_jobs.test_caption import arguments, row, write_shards

MAX_RUNS, RUN_TIMEOUT_S = 5, 400
NUM_CAPTIONS, CONCURRENCY = 48, 3


@dataclass
class Outcome:
    """The result of a step. `exit_codes`: of the runs of its job; `is_injected`: False if it ended before.

    `answers`: the number of searches by status.
    """

    violations: list[str] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    is_injected: bool = True
    answers: dict[int, int] = field(default_factory=dict)


Start = Callable[..., subprocess.Popen[str]]


class Jobs:
    """The jobs, and the results of undisturbed ones, which are made when they are needed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def train(self, step: Step) -> Outcome:
        """Train in one process without Ray."""
        undisturbed, duration_s = self._trained
        out = self._world.uri(f"train-{step.number}", step.fault.kind)
        outcome = self._run_until_done(step, self._training(out), duration_s)
        outcome.violations += check_training(out, undisturbed)
        return outcome

    def embed_gallery(self, step: Step) -> Outcome:
        """Embed 48 photos and publish them."""
        undisturbed, duration_s = self._embedded
        gallery = self._world.uri(f"gallery-{step.number}", step.fault.kind)
        outcome = self._run_until_done(step, self._embedding(gallery), duration_s)
        digest = checkpoint.read_digest(self._model)
        outcome.violations += check_gallery(gallery, undisturbed, digest)
        return outcome

    def caption(self, step: Step) -> Outcome:
        """Caption 48 photos. The moment of the fault is a share of the answers."""
        kind, out = step.fault.kind, self._world.uri(f"captions-{step.number}", step.fault.kind)
        shards = write_shards(
            self._world.folder / f"uncaptioned-{step.number}", [row(n) for n in range(NUM_CAPTIONS)], 16
        )
        with ChatServer(delay_s=0.1).running() as server:
            options = arguments(server, shards, out, "--concurrency", CONCURRENCY)
            start = self._command("ray_jobs/caption.py", *options, STBIR_CAPTION_KEY=KEY)
            outcome = self._run(step, start, lambda job: self._disturb_captioning(step, job, server, out))
            # Answers that cannot be stored are lost; a killed job is interrupted between answers.
            lost = CONCURRENCY * len(outcome.exit_codes) if kind in ("disk_full", "storage_storm") else 0
            calls = server.delivered.total()
        outcome.violations += check_captions(out, NUM_CAPTIONS, calls, NUM_CAPTIONS + lost)
        return outcome

    def _disturb_captioning(
        self, step: Step, job: subprocess.Popen[str], server: ChatServer, out: str
    ) -> bool:
        goal = 1 + int(step.moment * (NUM_CAPTIONS - 2 * CONCURRENCY))
        wait_until(lambda: server.delivered.total() >= goal or job.poll() is not None, f"{goal} answers", 90)
        if step.fault.kind != "kill":
            return self._inject(step, job)
        server.gate.clear()
        wait_until(lambda: _stored_count(out) == server.delivered.total(), "all answers to be stored")
        callers = self._world.processes("caption_chunk")
        is_injected = self._inject(step, job)
        psutil.wait_procs(callers, timeout=20)
        server.gate.set()
        wait_until(lambda: server.active_calls == 0 or job.poll() is None, "the end of the active calls")
        return is_injected

    def _run_until_done(self, step: Step, start: Start, duration_s: float) -> Outcome:
        def disturb(job: subprocess.Popen[str]) -> bool:
            _sleep_while_running(job, step.moment * duration_s)
            return self._inject(step, job)

        return self._run(step, start, disturb, step.moment * duration_s)

    def _run(
        self,
        step: Step,
        start: Start,
        disturb: Callable[[subprocess.Popen[str]], bool],
        clock_jump_s: float = 5.0,
    ) -> Outcome:
        """Run a job with the fault, then without until it ends with 0."""
        job = start(clock_jump_s if step.fault.kind == "clock_jump" else None)
        outcome = Outcome(is_injected=disturb(job))
        errors = [_wait(job)]
        outcome.exit_codes.append(job.returncode)
        while outcome.exit_codes[-1] != 0 and len(outcome.exit_codes) < MAX_RUNS:
            job = start()
            errors.append(_wait(job))
            outcome.exit_codes.append(job.returncode)
        if outcome.exit_codes[-1] != 0:
            outcome.violations.append(f"not done after {MAX_RUNS} runs: {errors[-1][-800:]}")
        elif step.fault.scenario != "train" and any("Traceback" in error for error in errors):
            outcome.violations += [error[-800:] for error in errors if "Traceback" in error]
        return outcome

    def _inject(self, step: Step, job: subprocess.Popen[str]) -> bool:
        """Inject the fault into the driver, or into a process of the job once there is one."""
        target = step.fault.target
        while job.poll() is None:
            victims = [psutil.Process(job.pid)] if target == "driver" else self._world.processes(target)
            if victims or not target:
                inject(step.fault.kind, victims, self._world.storage)
                return True
            time.sleep(0.02)
        return False

    def _command(self, file: str, *arguments: str, **variables: str) -> Start:
        def start(clock_jump_s: float | None = None) -> subprocess.Popen[str]:
            clock = [] if clock_jump_s is None else ["-m", "tests.chaos.clock", str(clock_jump_s)]
            return self._world.start(*clock, file, *arguments, **variables)

        return start

    def _training(self, out: str) -> Start:
        return self._command("tests/ray_jobs/local_run.py", self._shards, out)

    def _embedding(self, gallery: str) -> Start:
        options = ("--checkpoint", self._model, "--shards", self._shards, "--batch", "16")
        return self._command("ray_jobs/embed_gallery.py", *options, "--gallery", gallery)

    @cached_property
    def _shards(self) -> str:
        return write_synthetic(self._world.uri("shards"))

    @cached_property
    def _model(self) -> str:
        return make_checkpoint(self._world.uri("model"), "smoke")

    @cached_property
    def _trained(self) -> tuple[str, float]:
        return self._undisturbed(self._world.uri("undisturbed-train"), self._training)

    @cached_property
    def _embedded(self) -> tuple[str, float]:
        return self._undisturbed(self._world.uri("undisturbed-gallery"), self._embedding)

    def _undisturbed(self, out: str, command: Callable[[str], Start]) -> tuple[str, float]:
        """The result of an undisturbed job, and its duration in seconds."""
        start = time.monotonic()
        job = command(out)()
        stderr = _wait(job)
        assert job.returncode == 0, stderr[-3000:]
        return out, time.monotonic() - start


def _wait(job: subprocess.Popen[str]) -> str:
    """Wait for a job; its stderr. A job that hangs is killed, and the error is raised."""
    try:
        return job.communicate(timeout=RUN_TIMEOUT_S)[1]
    except subprocess.TimeoutExpired:
        job.kill()
        job.communicate()
        raise


def _sleep_while_running(job: subprocess.Popen[str], seconds: float) -> None:
    end = time.monotonic() + seconds
    while job.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def _stored_count(out: str) -> int:
    """Number of stored answers; each photo has one."""
    return len(Folder(out).list_files("answers/*/*/*/*.json")) if Path(out).exists() else 0
