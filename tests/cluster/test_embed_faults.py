"""The embedding job where machines die and storage fails: it leaves what an undisturbed one leaves."""

import json
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

from benchmarks.embed import make_model, make_pictures
from stbir.data.shard_writer import publish, write_rows
from stbir.gallery.gallery import open_table
from stbir.gallery.table_writer import newest_version
from stbir.storage.folder import Folder
from tests.cluster.fault_injection import moody
from tests.conftest import ROOT, wait_until
from tests.data.broken import eight, jpeg

# STBIR_EMBED_PHOTOS=20000 STBIR_EMBED_KILLS=10 is the whole trial; this one fits into minutes.
PHOTOS = int(os.environ.get("STBIR_EMBED_PHOTOS", "2500"))
KILLS = int(os.environ.get("STBIR_EMBED_KILLS", "3"))
pytestmark = [pytest.mark.endurance, pytest.mark.slow, pytest.mark.timeout(900 + PHOTOS // 8)]
VICTIMS = ("driver", "ray", "driver", "ray", "actor")[-min(KILLS, 5) :]  # of one gallery


def start(*words: str, **variables: str) -> subprocess.Popen[str]:
    """embed_gallery in a process of its own, with a Ray of its own."""
    return subprocess.Popen(
        [sys.executable, "ray_jobs/embed_gallery.py", *words],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(job: subprocess.Popen[str]) -> dict[str, object]:
    stdout, stderr = job.communicate(timeout=300 + PHOTOS // 20)
    assert job.returncode == 0, stderr[-3000:]
    summary: dict[str, object] = json.loads(stdout.splitlines()[-1])
    return summary


def shards(uri: str, folder: Path) -> str:
    make_pictures(folder, PHOTOS)
    paths = sorted(folder.rglob("*.jpg"))
    empty = {"class": None, "split": "test", "sketches": [], "text": None, "text_source": None}
    full = [
        {"photo_id": path.stem, "category": path.parent.name, "photo": path.read_bytes(), **empty}
        | {"sketch_count": 0}
        for path in paths
    ]
    out = Folder(uri)
    publish(out, [write_rows(out, 0, full)], {"in": PHOTOS, "ok": PHOTOS, "quarantined": 0}, {})  # type: ignore[arg-type]
    return uri


def version(gallery: str) -> int:
    newest = newest_version(Folder(gallery))
    return newest.version if newest is not None else 0


def kill(job: subprocess.Popen[str], victim: str) -> bool:
    """Whether there was something to kill: what has ended is not killed any more."""
    if job.poll() is not None:
        return False
    driver = psutil.Process(job.pid)
    word = {"ray": "raylet/raylet", "actor": "ray::PhotoTower"}.get(victim)
    hit = (
        [driver]
        if word is None
        else [p for p in driver.children(recursive=True) if word in " ".join(p.cmdline())]
    )
    for process in hit:
        process.send_signal(signal.SIGKILL)
    return bool(hit)


def killed(words: list[str], gallery: str, victim: str, chance: random.Random) -> bool:
    """Start the job and kill the victim at a moment after its first rows; whether it came to that."""
    before = version(gallery)
    job = start(*words, "--gallery", gallery)
    wait_until(lambda: version(gallery) > before or job.poll() is not None, "the first rows", 300)
    time.sleep(chance.uniform(0, PHOTOS / 1000))
    hit = kill(job, victim)
    if hit and victim != "actor":
        job.communicate(timeout=120)
    else:  # of an actor Ray starts another: nobody need do anything
        finished(job)
    return hit


def table(gallery: str) -> pa.Table:
    return open_table(Folder(gallery), "published").to_table()


def test_killed_anywhere_it_goes_on_to_the_same_table(s3: str, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    model = make_model(f"{s3}/killed/model", "smoke")
    data = shards(f"{s3}/killed/shards", tmp_path)
    words = ["--checkpoint", model, "--shards", data, "--batch", "64"]
    whole = finished(start(*words, "--gallery", f"{s3}/killed/whole"))
    assert (whole["in"], whole["embedded"]) == (PHOTOS, PHOTOS)

    kills = number = 0
    while kills < KILLS:
        number += 1
        gallery, before = f"{s3}/killed/{number}", kills
        for victim in VICTIMS[: KILLS - kills]:
            if not killed(words, gallery, victim, chance):
                break  # all rows were there before the moment came
            kills += 1
        last = finished(start(*words, "--gallery", gallery))
        assert last["already_there"] + last["embedded"] == PHOTOS  # type: ignore[operator]
        assert table(gallery).equals(table(f"{s3}/killed/whole"))
        assert len(lance.dataset(f"{gallery}/photos.lance").versions()) <= 3 + kills - before


def test_storage_that_fails_loses_and_invents_nothing(s3: str, tmp_path: Path) -> None:
    uri = f"{s3}/moody"
    good = {f"kind {n % 5}/{n:04}.jpg": jpeg(n) for n in range(600)}
    fs = fsspec.filesystem("s3")
    for name, data in {**good, **{f"bad/{way}.jpg": data for way, data in eight().items()}}.items():
        fs.pipe_file(f"{uri}/photos/{name}", data)
    model = make_model(f"{uri}/model", "smoke")
    with moody(os.environ["AWS_ENDPOINT_URL"], share=0.05) as (url, seen):
        words = ["--checkpoint", model, "--photos", f"folder:{uri}/photos", "--max-bad", "0.05"]
        ran = finished(start(*words, "--gallery", f"{uri}/gallery", AWS_ENDPOINT_URL=url))
    counts = [ran[name] for name in ("in", "embedded", "already_there", "quarantined", "failed")]
    assert counts == [608, 600, 0, 8, 0]
    assert all(seen[mood] > 3 for mood in ("busy", "slow", "cut"))
    assert sorted(table(f"{uri}/gallery")["photo_id"].to_pylist()) == sorted(good)
    with fs.open(f"{uri}/gallery/quarantine.parquet") as file:
        assert {Path(each["photo_id"]).stem for each in pq.read_table(file).to_pylist()} == set(eight())
