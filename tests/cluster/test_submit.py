"""`ray job submit` against a real `ray start --head`, token and all, as docs/operations.md tells it."""

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
from tests.cluster.head import Head, started
from tests.conftest import ROOT, wait_until

# A second Ray cluster starts, with its dashboard, and a training job in it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CODE = {"stbir", "ray_jobs", "serve", "stbir_client", "runs", "benchmarks"}
SMALL = 2**20  # bytes; the package is the code, so no more than that


def _submit(head: Head, *entry: str) -> subprocess.CompletedProcess[str]:
    return _ray(head.variables, "job", "submit", f"--address={head.url}", "--working-dir=.", "--", *entry)


def _ray(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ray", *arguments],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_training_is_a_job_and_its_package_is_code_alone(head: Head, shards: str, tmp_path: Path) -> None:
    out = str(tmp_path / "checkpoint")
    with _scraping(head) as figures:
        entry = ["ray_jobs/train.py", "--recipe", "smoke", "--shards", shards, "--out", out]
        done = _submit(head, "python", *entry, "--set", "stages.sketch.epochs=40")
    assert done.returncode == 0, done.stdout + done.stderr + head.log
    assert {f"ray_stbir_train_{name}" for name in ("step", "loss", "noise", "waited_share")} <= figures
    counts = read_manifest(Folder(out), "checkpoint").counts
    assert counts["steps"] == counts["total"] > 0

    (package,) = head.folder.glob("ray/session_latest/runtime_resources/working_dir_files/_ray_pkg_*/")
    files = [file.relative_to(package) for file in package.rglob("*") if file.is_file()]
    size = sum((package / file).stat().st_size for file in files)
    print(f"package: {len(files)} files, {size} bytes")
    assert size < SMALL
    code = [package / file for file in files if "__pycache__" not in file.parts]
    counted = f"{len(code)} files, {sum(file.stat().st_size for file in code) / 2**20:.1f} MiB"
    assert f"code of this job: {counted}" in done.stdout.splitlines()
    folders = {file.parts[0] for file in files if len(file.parts) > 1 and "__pycache__" not in file.parts}
    assert folders <= CODE


@contextmanager
def _scraping(head: Head) -> Iterator[set[str]]:
    """The names of this project's figures that Prometheus would find meanwhile."""
    found, over = set[str](), threading.Event()

    def scrape() -> None:
        while not over.wait(1):
            try:
                page = httpx.get(f"http://127.0.0.1:{head.metrics}/metrics", trust_env=False).text
            except httpx.TransportError:  # nothing has been exported yet
                continue
            found.update(line.split("{")[0] for line in page.splitlines() if line.startswith("ray_stbir_"))

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield found
    finally:
        over.set()
        scraper.join()


def test_a_job_has_a_name_a_status_and_logs_and_is_not_waited_for(head: Head) -> None:
    address, name = f"--address={head.url}", "the-preflight"
    entry = ["python", "ray_jobs/preflight.py", "--for", "serve", "--checkpoint", "no", "--gallery", "no"]
    how = [f"--submission-id={name}", "--no-wait", "--working-dir=.", "--entrypoint-num-cpus=1"]
    assert _ray(head.variables, "job", "submit", address, *how, "--", *entry).returncode == 0

    def status() -> str:
        told = _ray(head.variables, "job", "status", address, name)
        return told.stdout + told.stderr

    wait_until(lambda: f"Job '{name}' failed" in status(), "the end of the job", 240)
    logs = _ray(head.variables, "job", "logs", address, name).stdout
    assert "missing  checkpoint" in logs
    assert "ok       token" in logs


def test_a_job_that_cannot_get_its_resources_says_which_and_stops(head: Head, shards: str) -> None:
    entry = ["ray_jobs/train.py", "--recipe", "smoke", "--shards", shards, "--out", "s3://stbir-tests/none"]
    done = _submit(head, "python", *entry, "--gpu", "yes", "--wait", "3")
    assert done.returncode != 0
    assert "waiting up to 3 s for 3 CPUs and 1 GPUs" in done.stdout
    assert "--gpu: 1 workers need 1 GPUs, the cluster has 0; start nodes with GPUs" in done.stdout


CLOSED = [
    "/api/jobs/",
    "/api/v0/actors",
    "/api/v0/tasks",
    "/api/v0/nodes",
    "/nodes?view=summary",
    "/api/cluster_status",
]


@pytest.mark.parametrize("path", CLOSED)
def test_dashboard_and_state_want_the_token(head: Head, path: str) -> None:
    assert httpx.get(f"{head.url}{path}", trust_env=False).status_code == 401
    wrong = {"Authorization": f"Bearer {head.token[::-1]}"}
    assert httpx.get(f"{head.url}{path}", headers=wrong, trust_env=False).status_code in (401, 403)


def test_a_stranger_submits_nothing_and_joins_nothing(head: Head, tmp_path: Path) -> None:
    """As from another account: a token of one's own, which is not the cluster's."""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16))
    stranger = {**head.variables, "RAY_AUTH_TOKEN_PATH": str(token)}
    proof = tmp_path / "proof"
    entry = ["--", "touch", str(proof)]
    assert _ray(stranger, "job", "submit", f"--address={head.url}", *entry).returncode != 0
    assert _ray(stranger, "list", "actors", f"--address={head.url}").returncode != 0
    bare = httpx.post(f"{head.url}/api/jobs/", json={"entrypoint": f"touch {proof}"}, trust_env=False)
    assert bare.status_code == 401
    assert not proof.exists()
    code = f"import ray; ray.init({head.address!r}); print('in')"
    for variables, comes_in in ((stranger, False), (head.variables, True)):
        command = [sys.executable, "-c", code]
        joined = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert (joined.returncode == 0, "in" in joined.stdout.split()) == (comes_in, comes_in), joined.stderr


def test_a_cluster_that_asks_nobody_is_found_out_by_who_has_a_token() -> None:
    with started("disabled") as careless:
        entry = ["ray_jobs/preflight.py", "--for", "serve", "--checkpoint", "no", "--gallery", "no"]
        done = subprocess.run(
            [sys.executable, *entry],
            cwd=ROOT,
            env={**careless.variables, "RAY_ADDRESS": careless.address},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert "missing  token       the cluster answers at http://127.0.0.1:" in done.stdout, done.stderr


def test_the_probe_of_a_node_carries_the_token(head: Head) -> None:
    port = head.url.rpartition(":")[2]
    token = head.token

    def probe(path: str, **variables: str) -> int:
        command = [sys.executable, "deploy/healthy.py", f"{port}{path}"]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False).returncode

    assert probe("/api/gcs_healthz", RAY_AUTH_TOKEN=token) == 0
    assert probe("/api/jobs/", RAY_AUTH_TOKEN=token) == 0
    assert probe("/api/jobs/", RAY_AUTH_TOKEN="") == 1
    assert probe("/no/such/page", RAY_AUTH_TOKEN=token) == 1


def test_the_jobs_api_wants_the_token(head: Head) -> None:
    jobs = f"{head.url}/api/jobs/"
    token = head.token
    assert httpx.get(jobs, trust_env=False).status_code == 401
    wrong = {"Authorization": f"Bearer {token[::-1]}"}
    assert httpx.get(jobs, headers=wrong, trust_env=False).status_code in (401, 403)
    assert httpx.get(jobs, headers={"Authorization": f"Bearer {token}"}, trust_env=False).status_code == 200
