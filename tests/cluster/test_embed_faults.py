"""Embedding jobs with killed processes or storage faults: the gallery equals that of an undisturbed job."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import lance
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.embed import make_photos
from benchmarks.endpoint.world import make_checkpoint
from stbir.data.shard_writer import publish, write_rows
from stbir.gallery.gallery import open_table
from stbir.gallery.table_writer import latest_version
from stbir.storage.folder import Folder
from tests.cluster.conftest import finished
from tests.cluster.fault_injection import FAULTS, faulty_proxy
from tests.conftest import ROOT, wait_until
from tests.data.broken import broken_images, jpeg

# The full trial has STBIR_EMBED_PHOTOS=20000 STBIR_EMBED_KILLS=10; the default takes minutes.
NUM_PHOTOS = int(os.environ.get("STBIR_EMBED_PHOTOS", "2500"))
NUM_KILLS = int(os.environ.get("STBIR_EMBED_KILLS", "3"))
pytestmark = [pytest.mark.endurance, pytest.mark.slow, pytest.mark.timeout(900 + NUM_PHOTOS // 8)]
VICTIMS = ("driver", "ray", "driver", "ray", "actor")[-min(NUM_KILLS, 5) :]  # for one gallery
TIMEOUT_S = 300 + NUM_PHOTOS // 20
PROCESS_TITLES = {"ray": "raylet/raylet", "actor": "ray::EncoderActor"}


def start_job(*options: str, **variables: str) -> subprocess.Popen[str]:
    """embed_gallery in a process and with a Ray cluster of its own."""
    return subprocess.Popen(
        [sys.executable, "ray_jobs/embed_gallery.py", *options],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def make_shards(uri: str, folder: Path) -> str:
    make_photos(folder, NUM_PHOTOS)
    common = {"class": None, "split": "test", "sketches": [], "text": None, "text_source": None}
    rows = [
        {"photo_id": path.stem, "category": path.parent.name, "photo": path.read_bytes(), **common}
        | {"sketch_count": 0}
        for path in sorted(folder.rglob("*.jpg"))
    ]
    out = Folder(uri)
    counts = {"in": NUM_PHOTOS, "ok": NUM_PHOTOS, "quarantined": 0}
    publish(out, [write_rows(out, 0, rows)], counts, {})  # type: ignore[arg-type]
    return uri


def version(gallery: str) -> int:
    latest = latest_version(Folder(gallery))
    return latest.version if latest is not None else 0


def kill(job: subprocess.Popen[str], victim: str) -> bool:
    """Kill the victim's processes; False if the job has ended."""
    if job.poll() is not None:
        return False
    driver = psutil.Process(job.pid)
    processes = [driver]
    if victim != "driver":
        title = PROCESS_TITLES[victim]
        processes = [p for p in driver.children(recursive=True) if title in " ".join(p.cmdline())]
    for process in processes:
        process.send_signal(signal.SIGKILL)
    return bool(processes)


def start_and_kill(options: list[str], gallery: str, victim: str, rng: random.Random) -> bool:
    """Start the job and kill the victim some time after its next commit; False if the job has ended."""
    before = version(gallery)
    job = start_job(*options, "--gallery", gallery)
    wait_until(lambda: version(gallery) > before or job.poll() is not None, "the next commit", 300)
    time.sleep(rng.uniform(0, NUM_PHOTOS / 1000))
    killed = kill(job, victim)
    if killed and victim != "actor":
        job.communicate(timeout=120)
    else:  # Ray restarts an actor, and the job continues
        finished(job, TIMEOUT_S)
    return killed


def published_table(gallery: str) -> pa.Table:
    return open_table(Folder(gallery), "published").to_table()


def test_killed_job_resumes_to_the_same_table(s3: str, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    model = make_checkpoint(f"{s3}/killed/model", "smoke")
    shards = make_shards(f"{s3}/killed/shards", tmp_path)
    options = ["--checkpoint", model, "--shards", shards, "--batch", "64"]
    expected = f"{s3}/killed/uninterrupted"
    summary = finished(start_job(*options, "--gallery", expected), TIMEOUT_S)
    assert (summary["in"], summary["embedded"]) == (NUM_PHOTOS, NUM_PHOTOS)

    kills = number = 0
    while kills < NUM_KILLS:
        number += 1
        gallery, before = f"{s3}/killed/{number}", kills
        for victim in VICTIMS[: NUM_KILLS - kills]:
            if not start_and_kill(options, gallery, victim, rng):
                break  # the job was faster than the kill
            kills += 1
        summary = finished(start_job(*options, "--gallery", gallery), TIMEOUT_S)
        assert summary["already_there"] + summary["embedded"] == NUM_PHOTOS
        assert published_table(gallery).equals(published_table(expected))
        assert len(lance.dataset(f"{gallery}/photos.lance").versions()) <= 3 + kills - before


def test_storage_faults_lose_no_photo(s3: str) -> None:
    uri = f"{s3}/faulty"
    good = {f"kind {n % 5}/{n:04}.jpg": jpeg(n) for n in range(600)}
    bad = {f"bad/{name}.jpg": data for name, data in broken_images().items()}
    fs = fsspec.filesystem("s3")
    for name, data in {**good, **bad}.items():
        fs.pipe_file(f"{uri}/photos/{name}", data)
    model = make_checkpoint(f"{uri}/model", "smoke")
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], share=0.05) as (url, fault_counts):
        options = ["--checkpoint", model, "--photos", f"folder:{uri}/photos", "--max-error-rate", "0.05"]
        job = start_job(*options, "--gallery", f"{uri}/gallery", AWS_ENDPOINT_URL=url)
        summary = finished(job, TIMEOUT_S)
    counts = [summary[name] for name in ("in", "embedded", "already_there", "quarantined", "failed")]
    assert counts == [608, 600, 0, 8, 0]
    assert all(fault_counts[fault] > 3 for fault in FAULTS)
    assert sorted(published_table(f"{uri}/gallery")["photo_id"].to_pylist()) == sorted(good)
    with fs.open(f"{uri}/gallery/quarantine.parquet") as file:
        names = {Path(each["photo_id"]).stem for each in pq.read_table(file).to_pylist()}
    assert names == set(broken_images())
