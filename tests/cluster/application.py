"""The application on a real cluster, deployed as serve/deploy.yaml tells it, and what is served by it."""

import contextlib
import io
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
from stbir.gallery.gallery import schema, table_uri
from stbir.gallery.publish import prepare, publish
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.storage.folder import Folder
from tests.cluster.head import Head
from tests.conftest import ROOT


@dataclass(frozen=True)
class Release:
    """As `serve.rollout.release.Wanted`, and what its answers must say."""

    checkpoint: str
    gallery: str
    version: int
    digest: str
    ids: frozenset[str]

    @property
    def wanted(self) -> dict[str, Any]:
        return {"checkpoint": self.checkpoint, "gallery": self.gallery, "version": self.version}


def release(folder: Path, seed: int) -> Release:
    """A model of random towers, and a gallery of its own with ids that say whose they are."""
    uri, smoke = str(folder / f"checkpoint{seed}"), recipe("smoke")
    checkpoint.save(uri, "epoch-0", build(smoke.model, seed), smoke, made_from="", counts={})
    ids, dim, gallery = [f"{seed}/{n}" for n in range(32)], smoke.model.dim, Folder(str(folder / f"g{seed}"))
    vectors = np.random.default_rng(seed).standard_normal((len(ids), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    Path(gallery.uri).mkdir()
    known = {
        "photo_id": pa.array(ids),
        "category": pa.array(["shape"] * len(ids)),
        "content": pa.array([f"{n:064x}" for n in range(len(ids))]),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
    }
    columns = [known.get(f.name, pa.nulls(len(ids), f.type)) for f in schema(dim)]
    table = pa.Table.from_arrays(columns, schema=schema(dim))
    written = lance.write_dataset(table, table_uri(gallery)).version
    digest = checkpoint.read_digest(uri)
    candidate = prepare(gallery, written, digest, None)
    publish(gallery, candidate, {"ok": len(ids)})
    return Release(uri, gallery.uri, candidate.version, digest, frozenset(ids))


def picture() -> bytes:
    drawn, buffer = Image.new("L", (256, 256), 255), io.BytesIO()
    ImageDraw.Draw(drawn).ellipse((50, 60, 200, 210), outline=0, width=2)
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Deployed:
    """The application, and how to deploy it with another release."""

    head: Head
    folder: Path
    first: Release
    http: httpx.Client

    @property
    def settings(self) -> Path:
        """Those shipped, but that the towers grow and shrink within seconds."""
        file = self.folder / "settings.yaml"
        quick = {
            "upscale_delay_s": 1,
            "downscale_delay_s": 6,
            "metrics_interval_s": 1,
            "look_back_period_s": 2,
        }
        # Groups of searches, of which these small towers have one less than half of the time.
        few = {"autoscaling_config": {"max_replicas": 2, "target_ongoing_requests": 0.4, **quick}}
        file.write_text(yaml.safe_dump({"sketch": {"options": few}, "text": {"options": few}}))
        return file

    def deploy(self, wanted: dict[str, Any]) -> None:
        told = yaml.safe_load((ROOT / "serve" / "deploy.yaml").read_text())
        [app] = told["applications"]
        app["args"] = {"checkpoint": self.first.checkpoint, "gallery": self.first.gallery}
        app["args"]["config"] = str(self.settings)
        for deployment in app["deployments"]:
            deployment["user_config"] = wanted
        told["http_options"] = {"host": "127.0.0.1", "port": self.http.base_url.port}
        file = self.folder / "deploy.yaml"
        file.write_text(yaml.safe_dump(told))
        self._serve("deploy", str(file))

    def replicas(self, deployment: str) -> int:
        """How many of a deployment are running."""
        told = yaml.safe_load(self._serve("status"))
        states = told["applications"]["stbir"]["deployments"][deployment]["replica_states"]
        return int(states.get("RUNNING", 0))

    def lose(self, deployment: str) -> None:
        """Kill the processes of its replicas."""
        token = self.head.variables["RAY_AUTH_TOKEN_PATH"]  # this cluster's alone
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if f":{deployment}" in words and process.environ().get("RAY_AUTH_TOKEN_PATH") == token:
                    process.kill()

    def _serve(self, command: str, *arguments: str) -> str:
        words, variables = ["serve", command, "--address", self.head.url, *arguments], self.head.variables
        done = subprocess.run(
            words, cwd=ROOT, env=variables, check=True, capture_output=True, text=True, timeout=240
        )
        return done.stdout

    def ready(self) -> dict[str, Any]:
        answer = self.http.get("/readyz")
        return answer.json() if answer.status_code == 200 else {}


@contextmanager
def asking(
    http: httpx.Client, clients: int, text: str | None
) -> Iterator[list[Future[list[tuple[int, Any]]]]]:
    """So many clients that ask meanwhile, each one query after another; their answers, once it ends."""
    stop, sketch = threading.Event(), picture()
    form = {"k": "3", **({"text": text} if text else {})}

    def ask() -> list[tuple[int, Any]]:
        answers = []
        with httpx.Client(base_url=http.base_url, timeout=60, trust_env=False) as own:
            while not stop.is_set():
                answer = own.post("/v1/search", data=form, files={"sketch": ("s.png", sketch)})
                answers.append((answer.status_code, answer.json()))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        try:
            yield [pool.submit(ask) for _ in range(clients)]
        finally:
            stop.set()
