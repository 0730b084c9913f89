"""The run scripts parse, and their recipes and counts exist."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.recipes import recipe
from tests.conftest import ROOT

SETS = {"stbir_s.sh": "stbir_s", "stbir_c_gpu.sh": "stbir_c", "stbir_d.sh": "stbir_d"}


@pytest.mark.parametrize("script", sorted((ROOT / "runs").glob("*.sh")), ids=lambda script: script.name)
def test_script_parses_as_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize(("script", "name"), SETS.items())
def test_data_set_has_its_recipe_and_documented_counts(script: str, name: str) -> None:
    command = (ROOT / "runs" / script).read_text().splitlines()[-1]
    assert f"published.sh {name} " in command
    assert recipe(name).batch_size % 8 == 0
    documented = (ROOT / "docs" / "data.md").read_text().replace(",", "")
    for count in (
        word.split("=")[1] for word in command.split() if word.startswith(("photos=", "sketches="))
    ):
        assert count in documented


def test_wrong_count_stops_the_script(tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    summary.write_text("progress\n" + json.dumps({"counts": {"photos": 400, "sketches": 1275}}))

    def counts(*expected: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "runs/counts.py", str(summary), *expected]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert counts("photos=400", "sketches=1275").returncode == 0
    refused = counts("photos=401")
    assert refused.returncode == 2
    assert "photos: 400, not 401" in refused.stderr
