"""Each command that writes an artifact holds its lock, and refuses a folder that another writer holds."""

import argparse
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_jobs import (
    ablate,
    calibrate,
    caption,
    embed_gallery,
    evaluate,
    gallery,
    init_checkpoint,
    prepare_shards,
    search_batch,
    train,
)
from ray_jobs.jobs import gallery as gallery_actions
from ray_jobs.jobs.train import initialize_checkpoint
from ray_jobs.training.job import num_completed_steps
from ray_jobs.training.worker import save_checkpoint
from stbir.errors import InputError
from stbir.gallery.gallery import open_table
from stbir.gallery.table import PUBLISHED
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock, writer_lock
from stbir.storage.manifest import PRODUCERS
from tests.data.image_files import png, write_files
from tests.gallery.test_gallery import DIGEST, publish_gallery, unit_vectors
from tests.ray_jobs.chat_server import ChatServer
from tests.ray_jobs.local_run import local_job, resume_recipe
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "prepare_shards": prepare_shards.parser,
    "caption": caption.parser,
    "init_checkpoint": init_checkpoint.parser,
    "calibrate": calibrate.parser,
    "train": train.parser,
    "embed_gallery": embed_gallery.parser,
    "evaluate": evaluate.parser,
    "ablate": ablate.parser,
    "search_batch": search_batch.parser,
    "gallery": gallery.parser,
}
ENTRY_POINTS = {"evaluate": "evaluate_checkpoint"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_smoke_checkpoint(str(tmp_path_factory.mktemp("model")))


@pytest.fixture
def arguments(
    model: str, local_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, list[str]]]:
    """The arguments of each command, except the folder to which it writes."""
    index, queries, photos = str(tmp_path / "gallery"), tmp_path / "queries.parquet", tmp_path / "photos"
    publish_gallery(Folder(index), unit_vectors(20), digest=checkpoint.read_digest(model))
    pq.write_table(pa.table({"query_id": ["a"], "text": ["a red chair"]}), queries)
    photos.mkdir()
    monkeypatch.setenv("STBIR_CAPTION_KEY", "key")
    with ChatServer(api_key=None).running() as server:
        yield {
            "prepare_shards": ["--source", "synthetic:4", "--out"],
            "caption": ["--shards", local_shards, "--endpoint", server.url, "--model", "m", "--out"],
            "init_checkpoint": ["--model", "ViT-B-32", "--pretrained", str(queries), "--out"],
            "calibrate": ["--checkpoint", model, "--shards", local_shards, "--out"],
            "train": ["--shards", local_shards, "--recipe", "smoke", "--out"],
            "embed_gallery": ["--checkpoint", model, "--shards", local_shards, "--gallery"],
            "evaluate": ["--checkpoint", model, "--shards", local_shards, "--split", "test", "--out"],
            "ablate": ["--shards", local_shards, "--recipes", "smoke", "--folds", "train", "val", "--out"],
            "search_batch": [
                *("--checkpoint", model, "--gallery", index, "--queries", str(queries), "--out")
            ],
            "gallery": ["export", index],
        }


def run(command: str, arguments: list[str]) -> None:
    args = PARSERS[command]().parse_args(arguments)
    if command == "gallery":
        gallery_actions.ACTIONS[arguments[0]](args)
    else:
        getattr(importlib.import_module(f"ray_jobs.jobs.{command}"), ENTRY_POINTS.get(command, command))(args)


def test_all_commands_that_write_artifacts_are_tested() -> None:
    assert {Path(re.split("[ ,]", producer)[0]).stem for producer in PRODUCERS.values()} <= PARSERS.keys()


@pytest.mark.parametrize("command", PARSERS)
def test_a_second_writer_is_refused_before_ray_starts(
    command: str, arguments: dict[str, list[str]], tmp_path: Path
) -> None:
    out = Folder(str(tmp_path / "out"))
    with (
        writer_lock(out),
        pytest.raises(InputError, match=f"{out.uri}: locked by process .*; wait until it is done"),
    ):
        run(command, [*arguments[command], out.uri])
    assert [name for name in out.list_files("**") if not name.startswith("writer/")] == []


@pytest.mark.parametrize(
    "options", [["--photos", "folder:{photos}", "--checkpoint", "{model}"], ["--delete", "x"]]
)
def test_an_embedding_job_without_a_cluster_leaves_no_trace(
    options: list[str], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect() -> None:
        raise InputError("no cluster")

    monkeypatch.setattr("ray_jobs.jobs.embed_gallery.connect", connect)
    photos, out = write_files(tmp_path / "photos", {"a": png(1)}), tmp_path / "out"
    arguments = [option.format(photos=photos, model=model) for option in options]
    with pytest.raises(InputError, match=r"no cluster|no gallery here"):
        run("embed_gallery", [*arguments, "--gallery", str(out)])
    assert not out.exists()


def test_an_export_leaves_the_gallery_and_releases_its_folder(tmp_path: Path) -> None:
    index, out = Folder(str(tmp_path / "gallery")), Folder(str(tmp_path / "out"))
    publish_gallery(index, unit_vectors(20), digest=DIGEST)
    version = open_table(index, PUBLISHED).version
    with writer_lock(index):  # an export reads the gallery only
        run("gallery", ["export", index.uri, out.uri])
    assert open_table(index, PUBLISHED).version == version
    with writer_lock(out):
        pass


def test_a_training_worker_that_lost_the_lock_publishes_nothing(local_shards: str, tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    with artifact_lock(out, "checkpoint") as lock:
        job = replace(local_job(resume_recipe(), local_shards, out.uri), lock=lock)
        initialize_checkpoint(job, build_retriever(job.recipe.model, job.recipe.seed))
        retriever = checkpoint.load(out.uri)
        out.write(f"writer/{lock.number + 1:08d}.json", lock.holder.to_json())
        with pytest.raises(InputError, match="another writer has taken over"):
            save_checkpoint(job, retriever, 3, None)
    assert num_completed_steps(out.uri) == 0
    assert not out.exists("step-00000003")
