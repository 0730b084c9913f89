"""`ray job submit` to a real `ray start --head` with a token, as in docs/operate.md."""

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.cluster.head import Head, running_head
from tests.conftest import ROOT, wait_until

# Starts a second Ray cluster with its dashboard, and a training job on it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CODE = {"stbir", "ray_jobs", "serve", "stbir_client", "runs"}
MAX_PACKAGE_BYTES = 2 * 2**20


def _submit(head: Head, *entry: str) -> subprocess.CompletedProcess[str]:
    return _ray(head.variables, "job", "submit", f"--address={head.url}", "--working-dir=.", "--", *entry)


def _ray(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ray", *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=400, check=False
    )


def test_training_runs_as_a_job_and_its_package_is_only_code(head: Head, shards: str, tmp_path: Path) -> None:
    out = str(tmp_path / "checkpoint")
    with _scraping(head) as metric_names:
        entry = ["ray_jobs/train.py", "--recipe", "smoke", "--shards", shards, "--out", out]
        done = _submit(head, "python", *entry, "--set", "stages.sketch.epochs=40")
    assert done.returncode == 0, done.stdout + done.stderr + head.log
    assert {f"ray_stbir_train_{name}" for name in ("step", "loss", "noise", "waited_share")} <= metric_names
    counts = read_manifest(Folder(out), "checkpoint").counts
    assert counts["steps"] == counts["total"] > 0

    (package,) = head.folder.glob("ray/session_latest/runtime_resources/working_dir_files/_ray_pkg_*/")
    files = [file.relative_to(package) for file in package.rglob("*") if file.is_file()]
    size = sum((package / file).stat().st_size for file in files)
    print(f"package: {len(files)} files, {size} bytes")
    assert size < MAX_PACKAGE_BYTES
    code = [package / file for file in files if "__pycache__" not in file.parts]
    counted = f"{len(code)} files, {sum(file.stat().st_size for file in code) / 2**20:.1f} MiB"
    assert f"code of this job: {counted}" in done.stdout.splitlines()
    folders = {file.parts[0] for file in files if len(file.parts) > 1 and "__pycache__" not in file.parts}
    assert folders <= CODE


@contextmanager
def _scraping(head: Head) -> Iterator[set[str]]:
    """Names of this project's metrics that are exported within the block."""
    names, stopped = set[str](), threading.Event()

    def scrape() -> None:
        while not stopped.wait(1):
            try:
                page = httpx.get(f"http://127.0.0.1:{head.metrics}/metrics", trust_env=False).text
            except httpx.TransportError:  # nothing is exported yet
                continue
            names.update(line.split("{")[0] for line in page.splitlines() if line.startswith("ray_stbir_"))

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield names
    finally:
        stopped.set()
        scraper.join()


def test_job_with_submission_id_has_status_and_logs(head: Head) -> None:
    address, name = f"--address={head.url}", "the-preflight"
    entry = ["python", "ray_jobs/preflight.py", "--job", "serve", "--checkpoint", "no", "--gallery", "no"]
    options = [f"--submission-id={name}", "--no-wait", "--working-dir=.", "--entrypoint-num-cpus=1"]
    assert _ray(head.variables, "job", "submit", address, *options, "--", *entry).returncode == 0

    def status() -> str:
        result = _ray(head.variables, "job", "status", address, name)
        return result.stdout + result.stderr

    wait_until(lambda: f"Job '{name}' failed" in status(), "the end of the job", 240)
    logs = _ray(head.variables, "job", "logs", address, name).stdout
    assert "missing  checkpoint" in logs
    assert "ok       token" in logs


def test_job_without_resources_stops_with_a_message(head: Head, shards: str) -> None:
    entry = ["ray_jobs/train.py", "--recipe", "smoke", "--shards", shards, "--out", "s3://stbir-tests/none"]
    done = _submit(head, "python", *entry, "--gpu", "yes", "--resource-timeout", "3")
    assert done.returncode != 0
    assert "waiting up to 3 s for 3 CPUs and 1 GPUs" in done.stdout
    assert "--gpu: the workers need 1 GPUs, the cluster has 0; start nodes with GPUs" in done.stdout


PROTECTED = [
    "/api/jobs/",
    "/api/v0/actors",
    "/api/v0/tasks",
    "/api/v0/nodes",
    "/nodes?view=summary",
    "/api/cluster_status",
]


@pytest.mark.parametrize("path", PROTECTED)
def test_dashboard_and_state_require_the_token(head: Head, path: str) -> None:
    assert httpx.get(f"{head.url}{path}", trust_env=False).status_code == 401
    wrong = {"Authorization": f"Bearer {head.token[::-1]}"}
    assert httpx.get(f"{head.url}{path}", headers=wrong, trust_env=False).status_code in (401, 403)


def test_another_token_can_neither_submit_nor_join(head: Head, tmp_path: Path) -> None:
    """As from another account: a valid token, but not that of the cluster."""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16))
    wrong_token = {**head.variables, "RAY_AUTH_TOKEN_PATH": str(token)}
    proof = tmp_path / "proof"
    entry = ["--", "touch", str(proof)]
    assert _ray(wrong_token, "job", "submit", f"--address={head.url}", *entry).returncode != 0
    assert _ray(wrong_token, "list", "actors", f"--address={head.url}").returncode != 0
    response = httpx.post(f"{head.url}/api/jobs/", json={"entrypoint": f"touch {proof}"}, trust_env=False)
    assert response.status_code == 401
    assert not proof.exists()
    code = f"import ray; ray.init({head.address!r}); print('in')"
    for variables, may_join in ((wrong_token, False), (head.variables, True)):
        command = [sys.executable, "-c", code]
        joined = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert (joined.returncode == 0, "in" in joined.stdout.split()) == (may_join, may_join), joined.stderr


def test_preflight_reports_a_cluster_without_authentication() -> None:
    with running_head("disabled") as open_head:
        entry = ["ray_jobs/preflight.py", "--job", "serve", "--checkpoint", "no", "--gallery", "no"]
        done = subprocess.run(
            [sys.executable, *entry],
            cwd=ROOT,
            env={**open_head.variables, "RAY_ADDRESS": open_head.address},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert "missing  token       the cluster answers at http://127.0.0.1:" in done.stdout, done.stderr


def test_health_probe_sends_the_token(head: Head) -> None:
    port = head.url.rpartition(":")[2]
    token = head.token

    def probe(path: str, **variables: str) -> int:
        command = [sys.executable, "deploy/healthy.py", f"{port}{path}"]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False).returncode

    assert probe("/api/gcs_healthz", RAY_AUTH_TOKEN=token) == 0
    assert probe("/api/jobs/", RAY_AUTH_TOKEN=token) == 0
    assert probe("/api/jobs/", RAY_AUTH_TOKEN="") == 1
    assert probe("/no/such/page", RAY_AUTH_TOKEN=token) == 1


def test_jobs_api_requires_the_token(head: Head) -> None:
    jobs = f"{head.url}/api/jobs/"
    token = head.token
    assert httpx.get(jobs, trust_env=False).status_code == 401
    wrong = {"Authorization": f"Bearer {token[::-1]}"}
    assert httpx.get(jobs, headers=wrong, trust_env=False).status_code in (401, 403)
    assert httpx.get(jobs, headers={"Authorization": f"Bearer {token}"}, trust_env=False).status_code == 200
