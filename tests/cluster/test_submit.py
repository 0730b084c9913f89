"""`ray job submit` against a real `ray start --head`, token and all, as docs/operations.md tells it."""

import subprocess
from pathlib import Path

import httpx
import pytest

from stbir.data.manifest import read_manifest
from stbir.data.storage import Folder
from tests.cluster.conftest import Head
from tests.conftest import ROOT

# A second Ray cluster starts, with its dashboard, and a training job in it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CODE = {"stbir", "ray_jobs", "serve", "stbir_client", "runs", "benchmarks"}
SMALL = 2**20  # bytes; the package is the code, so no more than that


def _submit(head: Head, *entry: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ray", "job", "submit", f"--address={head.url}", "--working-dir=.", "--", *entry],
        cwd=ROOT,
        env=head.variables,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_training_is_a_job_and_its_package_is_code_alone(head: Head, shards: str, tmp_path: Path) -> None:
    out = str(tmp_path / "checkpoint")
    done = _submit(head, "python", "ray_jobs/train.py", "--recipe", "smoke", "--shards", shards, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr + head.log
    counts = read_manifest(Folder(out), "checkpoint").counts
    assert counts["steps"] == counts["total"] > 0

    (package,) = head.folder.glob("ray/session_latest/runtime_resources/working_dir_files/_ray_pkg_*/")
    files = [file.relative_to(package) for file in package.rglob("*") if file.is_file()]
    size = sum((package / file).stat().st_size for file in files)
    print(f"package: {len(files)} files, {size} bytes")
    assert size < SMALL
    folders = {file.parts[0] for file in files if len(file.parts) > 1 and "__pycache__" not in file.parts}
    assert folders <= CODE


def test_the_jobs_api_wants_the_token(head: Head) -> None:
    jobs = f"{head.url}/api/jobs/"
    token = Path(head.variables["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert httpx.get(jobs, trust_env=False).status_code == 401
    wrong = {"Authorization": f"Bearer {token[::-1]}"}
    assert httpx.get(jobs, headers=wrong, trust_env=False).status_code in (401, 403)
    assert httpx.get(jobs, headers={"Authorization": f"Bearer {token}"}, trust_env=False).status_code == 200
