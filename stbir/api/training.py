"""Training from Python: hands over to the command `ray_jobs/train.py`, which runs on Ray."""

import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from stbir.errors import InputError, JobFailedError

_COMMAND = (sys.executable, "-m", "ray_jobs.train")
_BAD_INPUT = 2  # exit code of all commands


def train(
    recipe: str,
    shards: str,
    out: str,
    *,
    set: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train a recipe on SHARDS into the CHECKPOINT `out`; returns the run's summary. Then `load(out)`.

    set: replaces fields of the recipe, e.g. `{"stages.joint.epochs": 3}`.
    options: those of `ray_jobs/train.py` with underscores, e.g. `workers=4`, `init_from="out/clip"`; a list
        gives several values, None leaves an option out.

    The same call again resumes. Progress goes to standard error; Ray starts on this machine unless
    RAY_ADDRESS names a cluster. Raises InputError for invalid input, JobFailedError if the run stops.
    """
    arguments = ["--recipe", recipe, "--shards", shards, "--out", out, *_options(options)]
    if set:
        arguments += ["--set", *(f"{field}={json.dumps(value)}" for field, value in set.items())]
    with tempfile.TemporaryFile("w+") as stdout:  # a pipe that nobody reads meanwhile could fill up
        command = [*_COMMAND, *arguments]
        with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            last_line = _echo(process.stderr)
        stdout.seek(0)
        summary = _summary(stdout.read().strip())
    if process.returncode == _BAD_INPUT:
        raise InputError(last_line)
    if process.returncode:
        raise JobFailedError(last_line, summary)
    return summary


def _options(options: Mapping[str, Any]) -> Iterable[str]:
    for name, value in options.items():
        if value is not None:
            yield f"--{name.replace('_', '-')}"
            yield from map(str, value if isinstance(value, list | tuple) else [value])


def _echo(lines: Iterable[str]) -> str:
    """Copy lines to standard error; returns the last one."""
    last: deque[str] = deque(maxlen=1)
    for line in lines:
        print(line, end="", file=sys.stderr, flush=True)
        if line.strip():
            last.append(line.strip())
    return last[0] if last else "train: ended without a message"


def _summary(output: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(output.splitlines()[-1]) if output else {}
    return summary
