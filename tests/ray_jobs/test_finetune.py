"""Training from another checkpoint (`--init-from`), in this process."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ray_jobs.jobs.train import _recipe, build_initial_model, initialize_checkpoint
from ray_jobs.train import parser
from ray_jobs.training.job import Job, num_completed_steps
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.ray_jobs.local_run import local_job, run_locally
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

pytestmark = pytest.mark.slow(reason="trains, in this process")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_smoke_checkpoint(str(tmp_path_factory.mktemp("trained")), seed=7)


def start(name: str, shards: str, out: str, init_from: str) -> Job:
    """Write step 0 as the command does."""
    options = ["--recipe", name, "--init-from", init_from, "--set", "batch_size=16"]
    args = parser().parse_args([*options, "--shards", shards, "--out", out])
    recipe = _recipe(args)
    stages = tuple(replace(stage, epochs=1) for stage in recipe.stages)
    job = local_job(replace(recipe, stages=stages), shards, out)
    job = replace(job, init_digest=checkpoint.read_digest(init_from))
    initialize_checkpoint(job, build_initial_model(job.recipe, out, args.init_from))
    return job


def changed_parts(before: str, after: str) -> set[str]:
    old, new = checkpoint.load(before), checkpoint.load(after)
    return {
        name.split(".")[0]
        for name, tensor in new.state_dict().items()
        if not torch.equal(tensor, old.state_dict()[name])
    }


@pytest.mark.parametrize(
    ("name", "changed"), [("finetune", {"sketch", "photo", "text"}), ("finetune_text", {"text"})]
)
def test_a_run_starts_from_the_checkpoint_and_trains_the_parts_of_its_recipe(
    name: str, changed: set[str], trained: str, local_shards: str, tmp_path: Path
) -> None:
    out = str(tmp_path)
    job = start(name, local_shards, out, trained)
    assert changed_parts(trained, out) == set()
    assert read_manifest(Folder(out), "checkpoint").details["init_from"] == checkpoint.read_digest(trained)
    assert run_locally(job) is None
    assert num_completed_steps(out) == sum(job.steps) > 0
    assert changed_parts(trained, out) == changed


def test_a_run_is_not_resumed_from_another_initial_checkpoint(
    trained: str, local_shards: str, tmp_path: Path
) -> None:
    job = start("finetune_text", local_shards, str(tmp_path / "out"), trained)
    initialize_checkpoint(job, None)
    for digest in ("", "sha256:other"):
        with pytest.raises(
            InputError, match=r"--init-from: .* started from another checkpoint; choose another"
        ):
            initialize_checkpoint(replace(job, init_digest=digest), None)


def test_a_missing_initial_checkpoint_is_refused(local_shards: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no checkpoint here .*init_checkpoint\.py"):
        start("finetune", local_shards, str(tmp_path), "nowhere")
