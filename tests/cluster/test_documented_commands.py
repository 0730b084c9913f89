"""Runs the commands of the documentation, with few photos and the smallest encoders."""

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

from benchmarks.embed import make_photos
from stbir.gallery.gallery import open_table
from stbir.storage.folder import Folder
from tests.cluster.head import Head
from tests.conftest import BUCKET, ROOT, free_port, is_listening, wait_until
from tests.data.image_files import sketch_png, write_files
from tests.documented_commands import documented
from tests.own_data import own_data_replacements, write_own_data
from tests.ray_jobs.chat_server import MODEL, ChatServer, photo

# Each command imports the model libraries, and most start Ray or work on a cluster.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
SMALLER = {r"synthetic:\d+": "synthetic:64", r"\bdemo(?=\b|_)": "smoke", r"--folds \d+": "--folds 2"}
QUERIES = pa.table({"query_id": ["a", "b"], "text": ["a red cup", "teal lamp"]})
NUM_PHOTOS = 40


def adapt(command: str, replacements: dict[str, str]) -> list[str]:
    """The arguments of a documented command on little data, with `replacements` (regular expressions)."""
    for pattern, replacement in (SMALLER | replacements).items():
        command = re.sub(pattern, replacement, command)
    return shlex.split(command)


def run(command: list[str], variables: dict[str, str] | None = None) -> str:
    """The output of a command that must succeed. Without `variables` it starts its own Ray."""
    completed = subprocess.run(
        command,
        cwd=ROOT,
        env=variables or {**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    output = f"{shlex.join(command)}\n{completed.stdout[-1000:]}\n{completed.stderr[-2000:]}"
    assert completed.returncode == 0, output
    return completed.stdout


def job_names(commands: list[str]) -> list[str]:
    return [match[1] for each in commands if (match := re.search(r"ray_jobs/(\w+)", each))]


@pytest.fixture(scope="module")
def cluster_variables(head: Head) -> dict[str, str]:
    """The environment of a shell on the head."""
    return {**head.variables, "RAY_ADDRESS": head.address}


@pytest.fixture(scope="module")
def outputs(cluster_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the outputs of the commands of README.md and docs/get_started.md.

    They run on an existing cluster, as each command's own Ray takes 15 s (`make demo` below starts these).
    """
    out, photos = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("photos")
    make_photos(photos, NUM_PHOTOS)
    pq.write_table(QUERIES, out / "queries.parquet")
    replacements = {
        r"\bout/": f"{out}/",
        r"queries\.parquet": f"{out}/queries.parquet",
        r"\bPHOTOS\b": str(photos),
        **own_data_replacements(write_own_data(tmp_path_factory.mktemp("own"), 64)),
    }
    readme = documented("README.md", "python ray_jobs/")
    get_started = documented("docs/get_started.md", "python ray_jobs/")
    assert job_names(readme) == ["prepare_shards", "train", "embed_gallery", "embed_gallery"]
    assert job_names(get_started) == [
        *("prepare_shards", "preflight", "train", "embed_gallery", "evaluate", "gallery", "search_batch")
    ]
    for command in dict.fromkeys(tuple(adapt(each, replacements)) for each in (*readme, *get_started)):
        run(list(command), cluster_variables)
    return out


def published_ids(gallery: str) -> list[str]:
    batches = open_table(Folder(gallery), "published").to_batches(columns=["photo_id"])
    return [photo_id for batch in batches for photo_id in batch["photo_id"].to_pylist()]


def test_readme_and_get_started_lead_to_hits_and_a_report(outputs: Path) -> None:
    started = outputs / "synthetic"
    hits = pq.read_table(started / "hits" / "hits.parquet")
    assert set(hits["query_id"].to_pylist()) == {"a", "b"}
    assert (started / "report" / "report.html").stat().st_size > 0
    assert len(published_ids(str(outputs / "photos"))) == NUM_PHOTOS


def test_other_runs_reports_and_exports_of_the_train_page(
    cluster_variables: dict[str, str], outputs: Path
) -> None:
    """On the shards and the checkpoint of README.md."""
    same, other = documented("docs/train.md", "python ray_jobs/train.py --recipe demo")
    assert [same] == documented("README.md", "python ray_jobs/train.py")
    commands = [
        other,
        *documented("docs/train.md", "python ray_jobs/calibrate.py"),
        *documented("docs/train.md", "python ray_jobs/export_onnx.py"),
        *documented("docs/train.md", "python ray_jobs/evaluate.py"),
    ]
    for command in commands:
        run(adapt(command, {r"\bout/": f"{outputs}/"}), cluster_variables)
    assert {path.name for path in (outputs / "onnx").glob("*.onnx")} == {
        *("sketch.onnx", "photo.onnx", "text.onnx")
    }
    assert "robustness" in json.loads((outputs / "robust" / "report.json").read_text())


def test_ablation_of_the_train_page(cluster_variables: dict[str, str], tmp_path: Path) -> None:
    replacements = {r"\bout/": f"{tmp_path}/"}
    [shards] = documented("docs/train.md", "python ray_jobs/prepare_shards.py")
    run(adapt(shards, replacements), cluster_variables)
    [command] = documented("docs/train.md", "python ray_jobs/ablate.py")
    summary = json.loads(run(adapt(command, replacements), cluster_variables).splitlines()[-1])
    assert summary["trials"] == 2 * 2


def write_manifest(folder: Path) -> None:
    """Four photos with a sketch and no caption."""
    for number in range(4):
        write_files(folder, {f"{number}.png": photo(number), f"sketch{number}.png": sketch_png(number)})
    lines = [
        {"id": f"{n}", "split": "train", "category": "lamp", "photo": f"{n}.png", "text": None}
        | {"sketches": [f"sketch{n}.png"]}
        for n in range(4)
    ]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_sample_of_the_captions_page(cluster_variables: dict[str, str], tmp_path: Path) -> None:
    write_manifest(tmp_path / "shop")
    [shards] = documented("docs/captions.md", "python ray_jobs/prepare_shards.py")
    [captions] = documented("docs/captions.md", "python ray_jobs/caption.py")
    with ChatServer(api_key=None).running() as server:
        replacements = {
            **{r"\bout/": f"{tmp_path}/", r"\bshop/": f"{tmp_path}/shop/"},
            **{r"http://\S+/v1": server.url, r"\bNAME\b": MODEL},
        }
        for command in (shards, captions):
            run(adapt(command, replacements), cluster_variables)
        assert server.violations == []
    assert (tmp_path / "shards" / "sheet.html").stat().st_size > 0


@contextmanager
def serving(outputs: Path) -> Iterator[None]:
    """`serve run` as in README.md and docs/serve.md, until Ctrl-C."""
    [command] = documented("README.md", "serve run")
    [on_s3] = documented("docs/serve.md", "serve run")
    assert command == re.sub(r"s3://BUCKET", "out", on_s3)
    assert not is_listening(8000), "port 8000 is in use"
    # A shell's background processes ignore Ctrl-C, and so would their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        adapt(command, {r"\bout/": f"{outputs}/"}), cwd=ROOT, env={**os.environ, "PATH": PATH}
    )

    def is_ready() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get("http://127.0.0.1:8000/readyz", trust_env=False).status_code == 200
        return False

    try:
        wait_until(lambda: is_ready() or process.poll() is not None, "the start of the endpoint", 240)
        assert process.poll() is None
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def test_searches_of_the_readme_by_curl_and_client(outputs: Path, tmp_path: Path) -> None:
    sketch = tmp_path / "me.png"
    sketch.write_bytes(sketch_png())
    replacements = {r"\bme\.png": str(sketch)}
    [curl] = documented("README.md", "curl")
    [client] = documented("README.md", "stbir search")
    assert documented("docs/serve.md", "stbir search") == [client]
    with serving(outputs):
        assert json.loads(run(adapt(curl, replacements)))["hits"]
        table = run([sys.executable, "-m", "stbir_client", *adapt(client, replacements)[1:]])
    assert any(photo_id in table for photo_id in published_ids(f"{outputs}/gallery"))


@pytest.mark.endurance  # the same jobs as above, each with its own Ray
def test_demo_answers_a_query(tmp_path: Path) -> None:
    command, *_ = documented("README.md", "make demo")
    assert not is_listening(8000), "port 8000 is in use"
    output = run([*shlex.split(command), f"DEMO={tmp_path}/demo 64"])
    assert (tmp_path / "demo" / "query.png").stat().st_size > 0
    assert "sketch+text" in output


def test_token_file_is_private(tmp_path: Path) -> None:
    [token_command] = documented("docs/operate.md", "ray get-auth-token")
    [command] = {line for line in _lines("docs/operate.md") if token_command in line}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    variables = {**inherited, "PATH": PATH, "HOME": str(tmp_path)}
    subprocess.run(["bash", "-c", command], env=variables, check=True, timeout=120)
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) >= 32


def _lines(document: str) -> list[str]:
    """The lines without comments; `document_commands` would drop the parentheses around a command."""
    return [line.split("  #")[0].strip() for line in (ROOT / document).read_text().splitlines()]


@pytest.fixture(scope="module")
def bucket(s3: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a folder in a bucket with photos, a table of them, and queries."""
    uri, files, folder = f"{s3}/documented", s3fs.S3FileSystem(), tmp_path_factory.mktemp("photos")
    make_photos(folder, NUM_PHOTOS)
    files.put(f"{folder}/", f"{BUCKET}/documented/photos/", recursive=True)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    photos = {
        "photo_id": names,
        "uri": [f"photos/{name}" for name in names],
        "price": [float(number) for number in range(len(names))],
    }
    for path, table in (("list.parquet", pa.table(photos)), ("queries/part-0.parquet", QUERIES)):
        with files.open(f"{BUCKET}/documented/{path}", "wb") as file:
            pq.write_table(table, file)
    return uri


def test_second_machine_joins_with_the_token(head: Head, cluster_variables: dict[str, str]) -> None:
    [command] = documented("docs/operate.md", "ray start --address")
    arguments = adapt(command, {r"HEAD:6379": cluster_variables["RAY_ADDRESS"]})
    options = ["--block", "--num-cpus=1", f"--object-store-memory={128 * 2**20}", "--labels=stbir-role=none"]
    ports = ["--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port"]
    options += [f"{name}={free_port()}" for name in ports]
    process = subprocess.Popen([*arguments, *options], env=cluster_variables, stdout=subprocess.DEVNULL)
    bearer = {"Authorization": f"Bearer {head.token}"}

    def num_alive() -> int:
        summary = httpx.get(f"{head.url}/nodes?view=summary", headers=bearer, trust_env=False).json()
        return sum(each["raylet"]["state"] == "ALIVE" for each in summary["data"]["summary"])

    try:
        wait_until(lambda: num_alive() == 2, "the second node", 120)
    finally:
        process.terminate()
        process.wait(timeout=60)
    wait_until(lambda: num_alive() == 1, "the end of the second node", 60)


def test_operate_and_index_pages_on_s3(
    head: Head, cluster_variables: dict[str, str], bucket: str, milvus: str
) -> None:
    """From shards to the versions of a gallery, on one cluster, in the order of their dependencies."""
    replacements = {r"s3://(BUCKET|B)/": f"{bucket}/", r"http://127\.0\.0\.1:8265": head.url}
    replacements[r"milvus://milvus\.example\.org:19530"] = milvus

    def run_all(commands: list[str], **more: str) -> list[dict[str, Any]]:
        outputs = [run(adapt(each, replacements | more), cluster_variables) for each in commands]
        last_lines = [(output.splitlines() or [""])[-1] for output in outputs]
        return [json.loads(line) for line in last_lines if line.startswith("{")]

    gallery = f"{bucket}/gallery"
    run_all(documented("docs/operate.md", "python ray_jobs/prepare_shards.py"))
    run_all(documented("docs/operate.md", "python ray_jobs/preflight.py --job train"))
    run_all(documented("docs/operate.md", "ray job submit"))
    [part] = run_all(documented("docs/index_gallery.md", "python ray_jobs/embed_gallery.py --part"))
    assert 0 < part["embedded"] < NUM_PHOTOS
    summaries = run_all(documented("docs/index_gallery.md", "python ray_jobs/embed_gallery.py --checkpoint"))
    assert [each["ok"] for each in summaries] == [NUM_PHOTOS] * 3  # a folder, a table, a folder to Milvus
    first, second, *rest = published_ids(gallery)
    deletion = {r"--delete ID ID": f"--delete '{first}' '{second}'"}
    [summary] = run_all(
        documented("docs/index_gallery.md", "python ray_jobs/embed_gallery.py --gallery"), **deletion
    )
    assert summary["removed"] == 2
    run_all(documented("docs/operate.md", "python ray_jobs/preflight.py --job embed"))
    run_all(documented("docs/operate.md", "python ray_jobs/preflight.py --job serve"))
    run_all(documented("docs/index_gallery.md", "python ray_jobs/search_batch.py"))
    run_all(documented("docs/index_gallery.md", "python ray_jobs/gallery.py"))
    for uri in (f"{bucket}/gallery", f"{bucket}/other", f"{milvus}/photos"):
        assert sorted(published_ids(uri)) == sorted(rest)
