"""Stages without negatives or with one class are reported before training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import with_sampling, with_terms
from stbir.config import Objective, Sampling
from stbir.data.photo_index import PhotoIndex
from stbir.data.sampling import iter_steps
from stbir.training.negatives import SampleKeys, negative_masks
from stbir.training.sample_checks import data_problem, sample_problems, share_without_negatives

SMOKE = recipe("smoke")


def photo_index(sketch_count: list[int], texts: list[int], labels: list[int]) -> PhotoIndex:
    count = len(sketch_count)
    return PhotoIndex(
        row_groups=[("file:///shards", "0.parquet", 0)],
        row_group=np.zeros(count, np.int64),
        row=np.arange(count),
        sketch_count=np.array(sketch_count),
        label=np.array(labels),
        text_key=np.array(texts),
        aux=np.zeros(count, bool),
        texts=[str(text) for text in texts],
        ids=[f"photo {number}" for number in range(count)],
    )


def test_one_photo_with_many_sketches_is_reported_for_every_stage() -> None:
    [first, single] = sample_problems(photo_index([300], [7], [0]), SMOKE)
    names = ", ".join(stage.name for stage in SMOKE.stages)
    assert first.startswith(f"stages {names}: 100% of the samples have no other photo")
    assert first.endswith("; add photos, or raise batch_size")
    assert "all photos have one class" in single


def test_photos_of_several_classes_are_not_reported() -> None:
    assert sample_problems(photo_index([2] * 12, list(range(12)), [0, 1, 2] * 4), SMOKE) == []


def test_one_class_is_reported_for_the_stages_with_a_category_loss() -> None:
    photos = photo_index([2] * 12, list(range(12)), [0] * 12)
    [problem] = sample_problems(photos, SMOKE)
    names = [stage.name for stage in SMOKE.stages if stage.objective.category]
    assert problem.startswith(f"stages {', '.join(names)}: all photos have one class")


@pytest.mark.parametrize(("batch_size", "texts"), [(1, list(range(12))), (12, [5] * 12)])
def test_a_batch_of_one_sample_or_one_caption_is_reported(batch_size: int, texts: list[int]) -> None:
    photos = photo_index([1] * 12, texts, [0, 1, 2] * 4)
    [problem] = sample_problems(photos, replace(SMOKE, batch_size=batch_size))
    assert "100% of the samples have no other photo with another caption" in problem


def test_a_photo_with_most_of_the_sketches_often_fills_a_batch() -> None:
    photos = photo_index([300, 1], [1, 2], [0, 1])
    [stage] = [stage for stage in SMOKE.stages if stage.name == "sketch"]
    stage = with_sampling(stage, sketches="all")
    assert share_without_negatives(photos, stage, 16) == pytest.approx((300 / 301) ** 16, abs=1e-6)


@given(
    photos=st.lists(
        st.tuples(st.integers(1, 4), st.integers(-1, 2), st.integers(0, 1)), min_size=1, max_size=6
    ),
    batch_size=st.integers(1, 5),
    is_stored=st.booleans(),
)
def test_share_is_1_only_if_the_loss_has_no_negative(
    photos: list[tuple[int, int, int]], batch_size: int, is_stored: bool
) -> None:
    sketch_count, texts, labels = (list(column) for column in zip(*photos, strict=True))
    index = photo_index(sketch_count, texts, labels)
    kind, k = ("hard", 2) if is_stored else ("batch", 0)
    [stage] = [stage for stage in SMOKE.stages if stage.name == "image"]
    pairs = tuple(p for p in stage.objective.pairs if "text" not in (*p.anchor, p.positive))
    objective = Objective(with_terms(pairs, candidates=kind))
    stage = replace(stage, objective=objective, sampling=Sampling(hard_negatives=k), epochs=8)
    has_negative = False
    for step in iter_steps(index, replace(SMOKE, stages=(stage,), batch_size=batch_size)):
        rows = np.column_stack([step.order.photo, step.order.hard_negatives]).ravel()
        columns = (rows, index.text_key[rows], index.label[rows])
        keys = SampleKeys(*map(torch.from_numpy, columns), rows_per_sample=1 + k)
        has_negative |= bool(negative_masks(kind, keys)[0].any())
    has_none = share_without_negatives(index, stage, batch_size) == pytest.approx(1)
    assert not (has_none and has_negative)
    if batch_size == 1 and not is_stored:
        assert has_none


def test_too_few_photos_or_steps_are_reported_with_a_remedy() -> None:
    def problem(count: int, is_initialized: bool, epochs: int = 40) -> str | None:
        photos = photo_index([1] * count, list(range(count)), [0, 1] * (count // 2))
        stages = tuple(replace(stage, epochs=epochs, noise=None) for stage in SMOKE.stages)
        return data_problem(photos, replace(SMOKE, stages=stages), is_initialized)

    assert problem(500, is_initialized=False) is None
    assert problem(100, is_initialized=True) is None
    scratch = problem(498, is_initialized=False)
    assert scratch is not None
    assert scratch.startswith(
        "498 photos are too few to train encoders from scratch (at least 500); start from"
    )
    few = problem(98, is_initialized=True)
    assert few is not None
    assert "init_checkpoint.py" in few
    short = problem(100, is_initialized=True, epochs=1)
    assert short is not None
    assert short.startswith("28 steps are too few to learn from (at least 100); raise the epochs of")
