"""W&B and MLflow get each step once, through Ray's integrations; the packages are fakes that write calls."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.util.queue import Queue

from ray_jobs.training.job import Job
from ray_jobs.training.tracking import TrackerError, open_trackers, tracking_environment
from stbir.errors import InputError
from tests.ray_jobs.local_run import local_job, resume_recipe, run_locally

# The modules and names that Ray 2.60 imports or calls. Parameters are those of wandb 0.31 and mlflow 3.17.
RECORD = """
import json, os
def record(name, /, **values):
    with open(os.environ["TRACKER_CALLS"], "a") as file:
        file.write(json.dumps([name, values], default=str) + "\\n")
"""
WANDB = """
from fake_calls import record
class Run:
    def log(self, data, step=None, commit=None):
        record("log", step=step, **{"values": data})
    def finish(self, exit_code=None):
        record("finish")
def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None,
         group=None, job_type=None, mode=None, reinit=None, resume=None, allow_val_change=None):
    record("init", id=id, name=name, config=config, resume=resume)
    return Run()
"""
MLFLOW = """
import os
from types import SimpleNamespace
from fake_calls import record
__version__, _active = "3.0.0", []
def set_tracking_uri(uri): record("uri", uri=uri)
def set_registry_uri(uri): pass
def get_experiment_by_name(name): return None
def create_experiment(name, artifact_location=None, tags=None): return record("experiment", name=name) or "7"
def active_run(): return _active[-1] if _active else None
def start_run(run_id=None, experiment_id=None, run_name=None, nested=False, tags=None):
    run_id = run_id or os.environ.pop("MLFLOW_RUN_ID", None)
    record("start", id=run_id, experiment=experiment_id, name=run_name)
    _active.append(SimpleNamespace(info=SimpleNamespace(run_id=run_id or "run-1")))
def log_param(key, value): record("param", key=key, value=value)
def log_metrics(metrics, step=None, synchronous=None):
    assert not any(set(name) & set("@+/") for name in metrics), metrics
    record("log", step=step, **{"values": metrics})
def end_run(status="FINISHED"): record("finish"); _active.pop()
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of calls. The packages exist while the test runs."""
    packages = tmp_path / "packages"
    files = {"fake_calls.py": RECORD, "wandb/__init__.py": WANDB, "mlflow/__init__.py": MLFLOW}
    files |= {"wandb/util.py": "json_dumps_safer = str", "wandb/wandb_run.py": "class Run: ..."}
    types = "wandb/sdk/data_types"
    files |= {f"{types}/base_types/wb_value.py": "class WBValue: ..."}
    files |= {f"{types}/image.py": "class Image: ...", f"{types}/video.py": "class Video: ..."}
    files |= {"mlflow/utils/mlflow_tags.py": "MLFLOW_RUN_NAME = 'mlflow.runName'"}
    for name, code in files.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(code)
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("TRACKER_CALLS", str(tmp_path / "calls.jsonl"))
    monkeypatch.setenv("WANDB_START_METHOD", "thread")  # Ray sets it in this process; removed at the end
    yield tmp_path / "calls.jsonl"
    for name in list(sys.modules):
        if name.startswith(("wandb", "mlflow", "fake_calls", "ray.air.integrations.")):
            del sys.modules[name]


VARIABLES = {
    "wandb": {"WANDB_MODE": "offline", "WANDB_PROJECT": "photos"},
    "mlflow": {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
}


def tracked_job(tracker: str, shards: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    for name, value in VARIABLES[tracker].items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return replace(local_job(resume_recipe(), shards, str(out)), tracking=VARIABLES[tracker])


def read(calls: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in calls.read_text().splitlines()]
    return [values for called, values in lines if called == name]


@pytest.mark.slow(reason="trains, in this process")
@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_each_step_is_tracked_once_by_a_resumed_run(
    tracker: str, local_shards: str, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tracked_job(tracker, local_shards, tmp_path / "out", monkeypatch)
    assert run_locally(job, preemption_info=lambda: "leaving") is None
    assert run_locally(job) is None
    logged = read(calls, "log")
    assert [call["step"] for call in logged] == list(range(1, sum(job.steps) + 1))
    assert all(call["values"]["loss"] > 0 and "lr" in call["values"] for call in logged)
    starts = read(calls, "init" if tracker == "wandb" else "start")
    assert len(starts) == len(read(calls, "finish")) > 1
    run_ids = {start["id"] for start in starts} - {None}
    assert len(run_ids) == 1
    assert json.loads((tmp_path / "out" / "tracking.json").read_text()) == {tracker: run_ids.pop()}


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_parameters_of_the_run(
    tracker: str, local_shards: str, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tracked_job(tracker, local_shards, tmp_path, monkeypatch)
    monkeypatch.setattr("ray_jobs.training.tracking.num_completed_steps", lambda out: 0)
    with open_trackers(job) as track:
        track(3, {"val acc@1/sketch+text": 5.0})
    if tracker == "wandb":
        [config] = [start["config"] for start in read(calls, "init")]
    else:
        config = {call["key"]: call["value"] for call in read(calls, "param")}
        assert read(calls, "experiment") == [{"name": "stbir"}]
    assert config == {
        "recipe": "smoke",
        "batch_size": 8,
        "seed": job.recipe.seed,
        "photos": len(job.photos),
        "steps": sum(job.steps),
        "out": str(tmp_path),
    }
    name = "val acc@1/sketch+text" if tracker == "wandb" else "val acc_1_sketch_text"
    assert read(calls, "log") == [{"step": 3, "values": {name: 5.0}}]


def test_error_of_a_tracker_turns_it_off_with_a_warning(
    local_shards: str, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    job = tracked_job("wandb", local_shards, tmp_path, monkeypatch)
    monkeypatch.setattr("ray_jobs.training.tracking.num_completed_steps", lambda out: 0)
    with open_trackers(replace(job, progress=cast(Queue, SimpleNamespace(put=lines.append)))) as track:
        track(1, cast(dict[str, float], 5))
        track(2, {"loss": 1.0})
    assert [line["warning"][:28] for line in lines] == ["wandb is off from step 1 on:"]
    assert read(calls, "log") == []


def test_tracker_without_a_key_ends_the_run_with_one_line(
    local_shards: str, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tracked_job("wandb", local_shards, tmp_path, monkeypatch)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    job = replace(job, tracking={"WANDB_PROJECT": "photos"})
    message = run_locally(job)
    assert message is not None
    assert message.startswith("wandb: No WandB API key found.")
    assert message.endswith("; or unset WANDB_PROJECT")
    with pytest.raises(TrackerError), open_trackers(job):
        pass


def test_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="WANDB_PROJECT is set, but wandb is not installed: pip inst"):
        tracking_environment({"WANDB_PROJECT": "photos"})
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI is set, but mlflow is not installed"):
        tracking_environment({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert tracking_environment({"MLFLOW_EXPERIMENT_NAME": "unused", "PATH": "/bin"}) == {}


def test_variables_of_the_trackers_that_are_on_reach_the_workers(calls: Path) -> None:
    environment = {"MLFLOW_TRACKING_URI": "http://h", "MLFLOW_TRACKING_TOKEN": "t", "PATH": "/bin"}
    assert tracking_environment(environment) == {k: v for k, v in environment.items() if k != "PATH"}
    assert tracking_environment({"WANDB_API_KEY": "k"}) == {"WANDB_API_KEY": "k"}
