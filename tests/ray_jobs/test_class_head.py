"""The class head starts from class means, once, in the first stage with a class term."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ray_jobs.recipes import recipe
from stbir.config import Recipe
from stbir.data.photo_index import PhotoIndex, build_photo_index, class_names
from stbir.data.shards import open_shards
from stbir.embedding.embed import embed_photos
from stbir.model.builder import build_retriever
from stbir.training.class_head import start_class_head
from stbir.training.stages import StageRun, TrainableModel, start_stage

CPU = torch.device("cpu")
EXTRA_CLASS = "no photo has it"


def start(shards: str, name: str) -> tuple[StageRun, Recipe, PhotoIndex, torch.Tensor]:
    """A run of the stage, and a copy of its class weights."""
    r, source = recipe("smoke"), open_shards(shards)
    classes = [*class_names(source, ["train"]), EXTRA_CLASS]
    torch.manual_seed(0)
    model = TrainableModel(build_retriever(r.model, 0), len(classes))
    [stage] = [stage for stage in r.stages if stage.name == name]
    assert model.class_weight_CD is not None
    before = model.class_weight_CD.detach().clone()
    return start_stage(stage, r, model, 4), r, build_photo_index(source, ["train"], classes), before


def test_class_weights_are_the_class_means_of_the_photos(local_shards: str) -> None:
    run, r, photos, before = start(local_shards, "sketch")
    modes = [module.training for module in run.model.modules()]
    start_class_head(run, r, photos, CPU)
    assert [module.training for module in run.model.modules()] == modes
    images = [row["photo"] for row in open_shards(local_shards).iter_rows("train")]
    features = torch.from_numpy(embed_photos(run.model.retriever.photo, images))
    weight = run.model.class_weight_CD
    assert weight is not None
    for label in np.unique(photos.label):
        mean = sum(features[i] for i in range(len(features)) if photos.label[i] == label)
        assert isinstance(mean, torch.Tensor)
        assert torch.allclose(weight[label], F.normalize(mean, dim=0), atol=1e-5)
    assert torch.equal(weight[-1], before[-1])  # a class without photos


@pytest.mark.parametrize(("name", "step"), [("pretrain", 0), ("image", 0), ("sketch", 1)])
def test_head_is_set_only_before_the_first_stage_with_a_class_term(
    local_shards: str, name: str, step: int
) -> None:
    run, r, photos, before = start(local_shards, name)
    start_class_head(replace(run, step=step), r, photos, CPU)
    assert run.model.class_weight_CD is not None
    assert torch.equal(run.model.class_weight_CD, before)
