"""The application on a real cluster, deployed with serve/deploy.yaml, and releases to serve."""

import contextlib
import io
import shlex
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import lance
import numpy as np
import psutil
import pyarrow as pa
import yaml
from PIL import Image, ImageDraw

from ray_jobs.recipes import recipe
from stbir.gallery.publish import prepare, publish
from stbir.gallery.table import schema, table_uri
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from tests.cluster.head import Head
from tests.conftest import ROOT
from tests.documented_commands import documented


@dataclass(frozen=True)
class Release:
    """A checkpoint with its gallery, and the photo ids of its hits."""

    checkpoint: str
    gallery: str
    version: int
    digest: str
    ids: frozenset[str]

    @property
    def user_config(self) -> dict[str, Any]:
        return {"checkpoint": self.checkpoint, "gallery": self.gallery, "version": self.version}


def release(folder: Path | str, seed: int) -> Release:
    """A model with random encoders, and a gallery whose photo ids start with the seed."""
    uri, smoke = f"{folder}/checkpoint{seed}", recipe("smoke")
    checkpoint.save(uri, "epoch-0", build_retriever(smoke.model, seed), smoke, made_from="", counts={})
    return publish_version(uri, f"{folder}/g{seed}", str(seed), seed)


def publish_version(checkpoint_uri: str, gallery_uri: str, prefix: str, seed: int) -> Release:
    """Publish random vectors as the next version of a gallery; its photo ids start with the prefix."""
    ids, dim, gallery = [f"{prefix}/{n}" for n in range(32)], recipe("smoke").model.dim, Folder(gallery_uri)
    vectors = np.random.default_rng(seed).standard_normal((len(ids), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns_by_name = {
        "photo_id": pa.array(ids),
        "category": pa.array(["shape"] * len(ids)),
        "content": pa.array([f"{n:064x}" for n in range(len(ids))]),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
    }
    columns = [columns_by_name.get(f.name, pa.nulls(len(ids), f.type)) for f in schema(dim)]
    table = pa.Table.from_arrays(columns, schema=schema(dim))
    mode = "overwrite" if gallery.exists() else "create"
    written = lance.write_dataset(table, table_uri(gallery), mode=mode).version
    digest = checkpoint.read_digest(checkpoint_uri)
    candidate = prepare(gallery, written, digest, None)
    publish(gallery, candidate, {"ok": len(ids)})
    return Release(checkpoint_uri, gallery.uri, candidate.version, digest, frozenset(ids))


def sketch_png() -> bytes:
    image, buffer = Image.new("L", (256, 256), 255), io.BytesIO()
    ImageDraw.Draw(image).ellipse((50, 60, 200, 210), outline=0, width=2)
    image.save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Deployed:
    """The deployed application."""

    head: Head
    folder: Path
    initial: Release
    http: httpx.Client

    @property
    def settings(self) -> Path:
        """The default settings, with encoders that scale within seconds."""
        file = self.folder / "settings.yaml"
        autoscaling = {
            "upscale_delay_s": 1,
            "downscale_delay_s": 6,
            "metrics_interval_s": 1,
            "look_back_period_s": 2,
        }
        # Counted in groups of searches; these small encoders are busy less than half of the time.
        options = {"autoscaling_config": {"max_replicas": 2, "target_ongoing_requests": 0.4, **autoscaling}}
        file.write_text(yaml.safe_dump({"sketch": {"options": options}, "text": {"options": options}}))
        return file

    def deploy(self, user_config: dict[str, Any]) -> None:
        config = yaml.safe_load((ROOT / "serve" / "deploy.yaml").read_text())
        [app] = config["applications"]
        app["args"] = {"checkpoint": self.initial.checkpoint, "gallery": self.initial.gallery}
        app["args"]["config"] = str(self.settings)
        for deployment in app["deployments"]:
            deployment["user_config"] = user_config
        config["http_options"] = {"host": "127.0.0.1", "port": self.http.base_url.port}
        file = self.folder / "deploy.yaml"
        file.write_text(yaml.safe_dump(config))
        [command] = documented("docs/serve.md", "serve deploy")
        self._serve(*shlex.split(command.replace("serve/deploy.yaml", str(file)))[1:])

    def replicas(self, deployment: str) -> int:
        """Number of running replicas of a deployment."""
        config = yaml.safe_load(self._serve("status"))
        states = config["applications"]["stbir"]["deployments"][deployment]["replica_states"]
        return int(states.get("RUNNING", 0))

    def kill_replicas(self, deployment: str) -> None:
        """Kill the processes of a deployment's replicas."""
        token = self.head.variables["RAY_AUTH_TOKEN_PATH"]  # identifies this cluster
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if f":{deployment}" in command and process.environ().get("RAY_AUTH_TOKEN_PATH") == token:
                    process.kill()

    def _serve(self, command: str, *arguments: str) -> str:
        full, variables = ["serve", command, "--address", self.head.url, *arguments], self.head.variables
        done = subprocess.run(
            full, cwd=ROOT, env=variables, check=True, capture_output=True, text=True, timeout=240
        )
        return done.stdout

    def ready(self) -> dict[str, Any]:
        answer = self.http.get("/readyz")
        return answer.json() if answer.status_code == 200 else {}


@contextmanager
def concurrent_clients(
    http: httpx.Client, clients: int, text: str | None
) -> Iterator[list[Future[list[tuple[int, Any]]]]]:
    """Clients that send searches in a loop within the block; futures of their responses."""
    stop, sketch = threading.Event(), sketch_png()
    form = {"k": "3", **({"text": text} if text else {})}

    def send_searches() -> list[tuple[int, Any]]:
        answers = []
        with httpx.Client(base_url=http.base_url, timeout=60, trust_env=False) as client:
            while not stop.is_set():
                answer = client.post("/v1/search", data=form, files={"sketch": ("s.png", sketch)})
                answers.append((answer.status_code, answer.json()))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        try:
            yield [pool.submit(send_searches) for _ in range(clients)]
        finally:
            stop.set()
