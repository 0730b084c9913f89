"""`python -m serve.search_folder`, as a user starts it: changes of the folder are found while it runs."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, free_port, wait_until
from tests.data.image_files import png
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

START_S, CHANGE_S, END_S = 240, 120, 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # starts Ray and Serve


def found(port: int) -> set[str]:
    """The ids of all photos that the endpoint finds; empty before it answers."""
    with contextlib.suppress(httpx.TransportError):
        url, query = f"http://127.0.0.1:{port}/v1/search", {"text": "a photo", "k": 50}
        response = httpx.post(url, json=query, trust_env=False, timeout=30)
        if response.status_code == httpx.codes.OK:
            return {hit["photo_id"] for hit in response.json()["hits"]}
    return set()


def test_photos_that_come_and_go_are_found_while_it_runs(tmp_path: Path) -> None:
    checkpoint, port, photos = (
        save_smoke_checkpoint(f"{tmp_path}/checkpoint"),
        free_port(),
        tmp_path / "photos",
    )
    photos.mkdir()
    names = {f"{number}.png" for number in range(12)}
    for number, name in enumerate(sorted(names)):
        (photos / name).write_bytes(png(number * 20))
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process would ignore Ctrl-C
    options = ["--checkpoint", checkpoint, "--gallery", f"{tmp_path}/gallery", "--port", str(port)]
    command = [sys.executable, "-m", "serve.search_folder", str(photos), *options]
    with subprocess.Popen(command, cwd=ROOT, env=inherited, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
            wait_until(lambda: found(port) == names, "the first photos", CHANGE_S)
            (photos / "new.png").write_bytes(png(255))
            (photos / "broken.png").write_bytes(b"half a file")
            wait_until(lambda: found(port) == {*names, "new.png"}, "the new photo", CHANGE_S)
            (photos / "3.png").unlink()
            wait_until(lambda: found(port) == {*names, "new.png"} - {"3.png"}, "the removal", CHANGE_S)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(END_S) == 128 + signal.SIGINT
