"""The commands of README.md and docs/operations.md as told, on few photos and the smallest towers."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from benchmarks.embed import make_pictures
from stbir.gallery.gallery import open_table
from stbir.storage.folder import Folder
from tests.cluster.head import Head
from tests.conftest import BUCKET, ROOT, free_port, listens, wait_until
from tests.documented_commands import told_in
from tests.ray_jobs.chat_server import MODEL, ChatServer
from tests.ray_jobs.test_caption import row, write

# Each command imports the model libraries, and most start Ray or work on a cluster.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
SMALLER = {r"synthetic:\d+": "synthetic:64", r"\bdemo(?=\b|_)": "smoke"}


def small(command: str, places: dict[str, str]) -> list[str]:
    """The words of a command that is told, on little data, with these places for its own."""
    for told, instead in (SMALLER | places).items():
        command = re.sub(told, instead, command)
    return shlex.split(command)


def ran(command: list[str], variables: dict[str, str] | None = None) -> str:
    """What a command prints; the test fails with its words where it did not succeed. It starts a Ray of its
    own where the variables name none."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=variables or {**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def told(document: str, beginning: str) -> list[str]:
    found = [each for each in told_in(document) if each.startswith(beginning) and "…" not in each]
    assert found, beginning
    return found


def jobs_of(commands: list[str]) -> list[str]:
    return [found[1] for each in commands if (found := re.search(r"ray_jobs/(\w+)", each))]


@pytest.fixture(scope="module")
def joined(head: Head) -> dict[str, str]:
    """The variables of who stands on the head."""
    return {**head.variables, "RAY_ADDRESS": head.address}


@pytest.fixture(scope="module")
def line(joined: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the line of the README has run, from pictures to hits of many queries: on a cluster that is up
    already, as each command's own takes a quarter of a minute (`make demo` below starts these)."""
    out = tmp_path_factory.mktemp("line")
    asked = pa.table({"query_id": ["a", "b"], "text": ["a red cup", "teal lamp"]})
    pq.write_table(asked, out / "queries.parquet")
    places = {r"\bout/": f"{out}/", r"queries\.parquet": str(out / "queries.parquet")}
    commands = [
        each
        for each in told("README.md", "python ray_jobs/")
        if jobs_of([each])[0] not in ("caption", "ablate")
    ]
    assert jobs_of(commands) == [
        *("prepare_shards", "preflight", "train", "embed_gallery", "evaluate", "gallery", "search_batch")
    ]
    for command in commands:
        ran(small(command, places), joined)
    return out


def test_the_line_of_the_readme_leads_from_pictures_to_hits(line: Path) -> None:
    hits = pq.read_table(line / "hits" / "hits.parquet")
    assert set(hits["query_id"].to_pylist()) == {"a", "b"}
    assert (line / "report" / "report.html").stat().st_size > 0


def test_the_experiments_of_the_readme_run(joined: dict[str, str], tmp_path: Path) -> None:
    places = {r"\bout/": f"{tmp_path}/"}
    [shards] = told("README.md", "python ray_jobs/prepare_shards.py")
    ran([*small(shards, {r"\bout/shards": f"{tmp_path}/folds"}), "--folds", "2"], joined)
    [command] = told("README.md", "python ray_jobs/ablate.py")
    found = json.loads(ran(small(command, places), joined).splitlines()[-1])
    assert found["trials"] == 2 * 2


def test_the_captions_of_the_readme_are_shown(joined: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "bare", [row(number) for number in range(4)])
    [command] = told("README.md", "python ray_jobs/caption.py")
    with ChatServer(key=None).running() as server:
        places = {r"\bout/": f"{tmp_path}/", r"http://\S+/v1": server.url, r"\bNAME\b": MODEL}
        ran(small(command, places), joined)
        assert server.wrong == []
    assert (tmp_path / "shards" / "sheet.html").stat().st_size > 0


@contextmanager
def serving(line: Path) -> Iterator[None]:
    """`serve run` as both documents tell it; Ctrl-C ends it."""
    [command] = told("README.md", "serve run")
    [again] = told("docs/operations.md", "serve run")
    assert command == re.sub(r"s3://BUCKET", "out", again)
    assert not listens(8000), "the port that the documents tell is taken"
    # What a shell starts in the background ignores Ctrl-C, and so would what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        small(command, {r"\bout/": f"{line}/"}), cwd=ROOT, env={**os.environ, "PATH": PATH}
    )

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get("http://127.0.0.1:8000/readyz", trust_env=False).status_code == 200
        return False

    try:
        wait_until(lambda: answers() or process.poll() is not None, "the start of the endpoint", 240)
        assert process.poll() is None
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def test_the_endpoint_of_the_readme_is_asked_by_hand(line: Path, tmp_path: Path) -> None:
    sketch = tmp_path / "me.png"
    sketch.write_bytes(row(2)["photo"])
    places = {r"\bme\.png": str(sketch)}
    [by_curl] = told("README.md", "curl")
    [by_client] = told("README.md", "stbir search")
    with serving(line):
        assert json.loads(ran(small(by_curl, places)))["hits"]
        shown = ran([sys.executable, "-m", "stbir_client", *small(by_client, places)[1:]])
    assert "synthetic" in shown


@pytest.mark.endurance  # its jobs are those of the line above, each with a Ray of its own
def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    [command] = told("README.md", "make demo")
    assert not listens(8000), "the port that the documents tell is taken"
    said = ran([*shlex.split(command), f"DEMO={tmp_path}/demo 64"])
    assert (tmp_path / "demo" / "query.png").stat().st_size > 0
    assert "sketch+text" in said


def test_a_token_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    [command] = {each for each in _lines("docs/operations.md") if "get-auth-token --generate" in each}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    subprocess.run(
        ["bash", "-c", command], env={**plain, "PATH": PATH, "HOME": str(tmp_path)}, check=True, timeout=120
    )
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) >= 32


def _lines(document: str) -> list[str]:
    """As `told_in`, but with what the shell is told around a command."""
    return [line.split("  #")[0].strip() for line in (ROOT / document).read_text().splitlines()]


@pytest.fixture(scope="module")
def bucket(s3: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bucket's folder with some pictures and their list."""
    place, files, folder = f"{s3}/told", s3fs.S3FileSystem(), tmp_path_factory.mktemp("pictures")
    make_pictures(folder, 40)
    files.put(f"{folder}/", f"{BUCKET}/told/pictures/", recursive=True)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    listed = {
        "photo_id": names,
        "uri": [f"pictures/{each}" for each in names],
        "price": [float(number) for number in range(len(names))],
    }
    with files.open(f"{BUCKET}/told/list.parquet", "wb") as file:
        pq.write_table(pa.table(listed), file)
    return place


def test_a_second_machine_joins_by_the_token(head: Head, joined: dict[str, str]) -> None:
    [command] = told("docs/operations.md", "ray start --address")
    words = small(command, {r"HEAD:6379": joined["RAY_ADDRESS"]})
    more = ["--block", "--num-cpus=1", f"--object-store-memory={128 * 2**20}", "--labels=stbir-role=none"]
    ports = ["--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port"]
    free = [f"{name}={free_port()}" for name in ports]
    process = subprocess.Popen([*words, *more, *free], env=joined, stdout=subprocess.DEVNULL)
    bearer = {"Authorization": f"Bearer {head.token}"}

    def alive() -> int:
        told = httpx.get(f"{head.url}/nodes?view=summary", headers=bearer, trust_env=False).json()
        return sum(each["raylet"]["state"] == "ALIVE" for each in told["data"]["summary"])

    try:
        wait_until(lambda: alive() == 2, "the second node", 120)
    finally:
        process.terminate()
        process.wait(timeout=60)
    wait_until(lambda: alive() == 1, "its end", 60)


def test_operations_from_shards_to_the_life_of_a_gallery(
    head: Head, joined: dict[str, str], bucket: str
) -> None:
    """All on `s3://`, on a cluster that stays up, in the order in which they need each other."""
    places = {r"s3://(BUCKET|B)/": f"{bucket}/", r"http://127\.0\.0\.1:8265": head.url}
    left = set(told("docs/operations.md", "python ray_jobs/"))

    def run(beginning: str, **more: str) -> list[dict[str, Any]]:
        commands = told("docs/operations.md", beginning)
        outputs = [ran(small(each, places | more), joined) for each in commands]
        left.difference_update(commands)
        last = [(output.splitlines() or [""])[-1] for output in outputs]
        return [json.loads(line) for line in last if line.startswith("{")]

    gallery = Folder(f"{bucket}/gallery")
    run("python ray_jobs/prepare_shards.py")
    run("python ray_jobs/preflight.py --for train")
    run("ray job submit --address http://127.0.0.1:8265 --working-dir . -- python ray_jobs/train.py --recipe")
    by_folder, by_table = run("python ray_jobs/embed_gallery.py --checkpoint")
    assert by_folder["ok"] == by_table["ok"] == 40
    ids = open_table(gallery, "published").to_table(columns=["photo_id"])["photo_id"].to_pylist()
    first, second, *rest = ids
    [removed] = run(
        "python ray_jobs/embed_gallery.py --gallery", **{r"--delete ID ID": f"--delete '{first}' '{second}'"}
    )
    assert removed["removed"] == 2
    run("python ray_jobs/preflight.py --for embed")
    run("python ray_jobs/preflight.py --for serve")
    run("python ray_jobs/gallery.py")
    assert not left
    for name in ("gallery", "other"):
        kept = open_table(Folder(f"{bucket}/{name}"), "published").to_table(columns=["photo_id"])
        assert sorted(kept["photo_id"].to_pylist()) == sorted(rest)
