"""Precise batch-norm statistics: equal to those of a slow loop, and the same on all workers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from ray_jobs.recipes import recipe
from stbir.config import Recipe
from stbir.data.photo_index import PhotoIndex, build_photo_index
from stbir.data.shards import open_shards
from stbir.images import decode_photo
from stbir.model.builder import build_retriever
from stbir.training import batch_norm
from stbir.training.batch_norm import estimate_batch_norm
from stbir.training.stages import StageRun, TrainableModel, start_stage
from tests.conftest import free_port

CPU = torch.device("cpu")
BATCH = 8
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
State = dict[str, torch.Tensor]


def start(shards: str) -> tuple[StageRun, Recipe, PhotoIndex]:
    r = replace(recipe("demo"), batch_size=BATCH)
    [stage] = [stage for stage in r.stages if stage.name == "image"]
    model = TrainableModel(build_retriever(r.model, 0), num_classes=0)
    return start_stage(stage, r, model, 1), r, build_photo_index(open_shards(shards), ["train"], [])


def estimate(shards: str) -> State:
    run, r, photos = start(shards)
    estimate_batch_norm(run, r, photos, CPU)
    return run.model.retriever.photo.state_dict()


def first_norm(run: StageRun) -> tuple[nn.Module, nn.BatchNorm2d]:
    """The first convolution of the photo encoder and its batch norm."""
    modules = list(run.model.retriever.photo.trunk.modules())
    convolution = next(module for module in modules if isinstance(module, nn.Conv2d))
    return convolution, next(module for module in modules if isinstance(module, nn.BatchNorm2d))


def test_statistics_are_those_of_the_clean_images(local_shards: str) -> None:
    run, r, photos = start(local_shards)
    estimate_batch_norm(run, r, photos, CPU)
    convolution, norm = first_norm(run)
    size = r.model.photo.preprocess.size
    rows = open_shards(local_shards).iter_rows("train")
    outputs = []
    for row in rows:
        pixels = torch.from_numpy(decode_photo(row["photo"], size).copy())[None]
        with torch.no_grad():
            outputs.append(convolution(run.model.retriever.photo._normalize(pixels)))
    values = torch.cat(outputs).transpose(0, 1).flatten(1)  # (C, N·H·W)
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, values.mean(1), atol=1e-3)


def test_only_trained_norms_change_and_training_goes_on_as_before(local_shards: str) -> None:
    run, r, photos = start(local_shards)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    modes = [module.training for module in run.model.modules()]
    momenta = [m.momentum for m in run.model.modules() if isinstance(m, nn.BatchNorm2d)]
    estimate_batch_norm(run, r, photos, CPU)
    after = run.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(
        (name.startswith("retriever.photo.") and "running_" in name) or "num_b" in name for name in changed
    )
    assert [module.training for module in run.model.modules()] == modes
    assert [m.momentum for m in run.model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta


def test_number_of_images_is_limited(local_shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "NUM_IMAGES", 2 * BATCH)
    tracked = [value for name, value in estimate(local_shards).items() if "num_batches" in name]
    assert tracked
    assert all(count == 2 for count in tracked)


def run_worker(rank: int, port: int, shards: str, out: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save(estimate(shards), f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow(reason="starts two processes that import torch")
def test_workers_agree_and_are_close_to_one(local_shards: str, tmp_path: Path) -> None:
    mp.spawn(run_worker, (free_port(), local_shards, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    single = estimate(local_shards)
    for name in (name for name in single if "running_" in name):
        assert torch.equal(first[name], second[name]), name
        assert torch.isfinite(first[name]).all(), name
    mean = next(name for name in single if "running_mean" in name)
    assert torch.allclose(first[mean], single[mean], atol=1e-2)
