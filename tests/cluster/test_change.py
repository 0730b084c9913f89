"""Model and gallery change under load by `serve deploy`, as serve/deploy.yaml tells it."""

import io
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import lance
import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image, ImageDraw

from ray_jobs.recipes import recipe
from stbir.data.storage import Folder
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.retrieval.gallery import schema, table_uri
from stbir.retrieval.publish import prepare, publish
from tests.cluster.conftest import Head
from tests.conftest import ROOT, free_port, wait_until

pytestmark = [pytest.mark.slow(reason="a cluster of its own, under load"), pytest.mark.timeout(600)]

SWAPS = 5
CLIENTS = 4


@dataclass(frozen=True)
class Release:
    """As `serve.release.Wanted`, and what its answers must say."""

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
    file: Path
    first: Release
    http: httpx.Client

    def deploy(self, wanted: dict[str, Any]) -> None:
        told = yaml.safe_load((ROOT / "serve" / "deploy.yaml").read_text())
        [app] = told["applications"]
        app["args"] = {"checkpoint": self.first.checkpoint, "gallery": self.first.gallery}
        for deployment in app["deployments"]:
            deployment["user_config"] = wanted
        told["http_options"] = {"host": "127.0.0.1", "port": self.http.base_url.port}
        self.file.write_text(yaml.safe_dump(told))
        command = ["serve", "deploy", "--address", self.head.url, str(self.file)]
        subprocess.run(
            command, cwd=ROOT, env=self.head.variables, check=True, capture_output=True, timeout=120
        )

    def ready(self) -> dict[str, Any]:
        answer = self.http.get("/readyz")
        return answer.json() if answer.status_code == 200 else {}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    folder = tmp_path_factory.mktemp("change")
    return [release(folder, seed) for seed in range(2)]


@pytest.fixture(scope="module")
def deployed(
    head: Head, releases: list[Release], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    file = tmp_path_factory.mktemp("deploy") / "deploy.yaml"
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", timeout=30, trust_env=False) as http:
        app = Deployed(head, file, releases[0], http)
        app.deploy(releases[0].wanted)

        def up() -> bool:
            try:
                return bool(app.ready())
            except httpx.TransportError:
                return False

        wait_until(up, "the start of the application", 240)
        yield app


def test_five_changes_under_load_lose_and_mix_nothing(deployed: Deployed, releases: list[Release]) -> None:
    stop, sketch = threading.Event(), picture()

    def ask() -> list[tuple[int, Any]]:
        answers = []
        with httpx.Client(base_url=deployed.http.base_url, timeout=30, trust_env=False) as http:
            while not stop.is_set():
                form = {"text": "a red disc", "k": "3"}
                answer = http.post("/v1/search", data=form, files={"sketch": ("s.png", sketch)})
                answers.append((answer.status_code, answer.json()))
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(ask) for _ in range(CLIENTS)]
        try:
            for swap in range(SWAPS):
                new = releases[(swap + 1) % 2]
                deployed.deploy(new.wanted)
                wait_until(lambda d=new.digest: deployed.ready().get("checkpoint") == d, f"change {swap}", 60)
                time.sleep(0.5)
        finally:
            stop.set()
        answers = [each for one in asked for each in one.result()]
    assert {status for status, _ in answers} == {200}
    of = {each.digest: each for each in releases}
    for _, body in answers:
        told = of[body["checkpoint"]]
        assert body["gallery_version"] == told.version
        assert len(body["hits"]) == 3
        assert {hit["photo_id"] for hit in body["hits"]} <= told.ids
    seen = [body["checkpoint"] for one in asked for _, body in one.result()]
    assert set(seen) == set(of)
    print(f"{len(answers)} requests over {SWAPS} changes")


def test_a_release_that_cannot_be_is_refused_and_the_old_one_goes_on(
    deployed: Deployed, releases: list[Release]
) -> None:
    before = deployed.ready()
    mixed = {**releases[0].wanted, "gallery": releases[1].gallery, "version": releases[1].version}
    deployed.deploy(mixed)
    wait_until(lambda: deployed.ready().get("refused") is not None, "the refusal", 60)
    after = deployed.ready()
    assert {**after, "refused": None} == before
    assert "made with checkpoint" in after["refused"]
    assert deployed.http.post("/v1/search", json={"text": "a red disc"}).status_code == 200
