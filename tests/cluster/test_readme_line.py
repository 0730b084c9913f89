"""The line of README.md, command by command as it stands there, on few photos and the smallest towers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port
from tests.test_commands import commands

# Each command starts Ray and imports the model libraries.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ELSEWHERE = ("caption", "search_batch", "ablate")  # they want an endpoint, queries, folds
SMALLER = {"synthetic:800": "synthetic:64", "demo": "smoke"}


def line() -> list[str]:
    """The commands between which nothing is to be done: from pictures to a gallery and a report."""
    [block] = re.findall(
        r"^```sh\n(python ray_jobs/prepare_shards.*?^```)", (ROOT / "README.md").read_text(), re.M | re.S
    )
    told = commands(f"```sh\n{block}")
    ours = [each for each in told if each.startswith("python ray_jobs/") and "…" not in each]
    return [each for each in ours if not any(f"ray_jobs/{name}." in each for name in ELSEWHERE)]


def test_the_line_of_the_readme_runs(tmp_path: Path) -> None:
    told = line()
    names = [found[1] for each in told if (found := re.search(r"ray_jobs/(\w+)", each))]
    assert [name for name in names if name != "preflight"] == [
        *("prepare_shards", "train", "embed_gallery", "evaluate", "gallery")
    ]
    for command in told:
        for large, small in SMALLER.items():
            command = re.sub(rf"\b{large}\b", small, command)
        words = command.replace("out/", f"{tmp_path}/").replace("8000", str(free_port())).split()
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
