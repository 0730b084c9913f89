"""`serve run` with `host` and `port`, as a user starts it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, free_port, wait_until
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # starts Ray and Serve


def test_serve_run_listens_at_the_given_port(tmp_path: Path) -> None:
    checkpoint, port = save_smoke_checkpoint(f"{tmp_path}/checkpoint"), free_port()
    program = str(Path(sys.executable).with_name("serve"))
    arguments = [f"checkpoint={checkpoint}", f"gallery={tmp_path}/gallery", f"port={port}", "host=127.0.0.1"]
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process would ignore Ctrl-C
    process = subprocess.Popen([program, "run", "serve.app:build", *arguments], cwd=ROOT, env=inherited)

    def is_live() -> bool:
        with contextlib.suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{port}/healthz"
            return httpx.get(url, trust_env=False).status_code == 200
        return False

    try:
        wait_until(lambda: is_live() or process.poll() is not None, "the start of the endpoint", 240)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
