"""The order of training samples: complete, determined by the seed, equal from any step."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import PHOTO_TO_TEXT, SKETCH, TO_SKETCH, with_sampling
from stbir.config import Objective, Recipe, Sampling, Stage, Trainable
from stbir.data.photo_index import UNKNOWN, PhotoIndex, hash_text
from stbir.data.sampling import (
    Order,
    Step,
    eligible_photos,
    epoch_order,
    iter_steps,
    num_stage_steps,
    samples_per_epoch,
)
from stbir.errors import InputError

ONE = Stage("sketch", SKETCH, Objective((TO_SKETCH,)), 2)
ALL = with_sampling(ONE, sketches="all")
PRETRAIN = Stage("pretrain", Trainable(("photo", "text")), Objective((PHOTO_TO_TEXT,)), 2, Sampling(aux=True))
SEED = (0, 0, 0)


def photo_index(sketches: list[int], aux: int = 0, group_size: int = 4, classes: int = 3) -> PhotoIndex:
    counts = np.array(sketches + [0] * aux)
    n = len(counts)
    numbers = np.arange(n)
    return PhotoIndex(
        row_groups=[("memory://x", "0.parquet", g) for g in range(-(-n // group_size))],
        row_group=numbers // group_size,
        row=numbers % group_size,
        sketch_count=counts,
        label=np.where(numbers < len(sketches), numbers % classes, -1),
        text_key=numbers,
        aux=numbers >= len(sketches),
        texts=[str(i) for i in numbers],
        ids=[str(i) for i in numbers],
    )


def make_recipe(*stages: Stage, batch_size: int = 5) -> Recipe:
    return replace(recipe("smoke"), stages=stages, batch_size=batch_size, seed=0, shuffle_window=8)


def samples(steps: list[Step]) -> list[tuple[int, int]]:
    return [pair for s in steps for pair in zip(s.order.photo.tolist(), s.order.sketch.tolist(), strict=True)]


def test_an_epoch_has_each_sketch_exactly_once() -> None:
    index = photo_index([2, 0, 1, 3, 1, 1, 2, 4, 1])
    epoch = samples(list(iter_steps(index, make_recipe(ALL))))[: samples_per_epoch(index, ALL)]
    assert Counter(epoch) == Counter((p, s) for p, n in enumerate(index.sketch_count) for s in range(n))


def test_one_sketch_per_photo_is_random() -> None:
    pairs = samples(list(iter_steps(photo_index([3] * 30), make_recipe(ONE))))
    assert Counter(p for p, _ in pairs[:30]) == Counter(range(30))
    assert {s for _, s in pairs} == {0, 1, 2}


def test_the_seed_determines_the_order_of_each_epoch() -> None:
    index = photo_index([1] * 20)
    orders = [
        epoch_order(index, ONE, (seed, 0, epoch), 20).photo.tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert epoch_order(index, ONE, SEED, 20).photo.tolist() == orders[0]


@pytest.mark.parametrize("start", [0, 1, 3, 7, 8, 11])
def test_a_resumed_run_continues_the_same_order(start: int) -> None:
    index, r = photo_index([2, 1, 1, 3, 1, 1, 2, 1], aux=5), make_recipe(PRETRAIN, ALL)
    expected = list(iter_steps(index, r))[start:]
    resumed = list(iter_steps(index, r, start))
    assert [(s.stage, s.number, s.offset) for s in resumed] == [
        (s.stage, s.number, s.offset) for s in expected
    ]
    assert samples(resumed) == samples(expected)


def test_steps_are_full_and_stages_have_their_length() -> None:
    index, r = photo_index([2, 1, 1, 3, 1, 1, 2, 1], aux=5), make_recipe(PRETRAIN, ALL)
    steps = list(iter_steps(index, r))
    assert {len(s.order.photo) for s in steps} == {5}
    lengths = {0: num_stage_steps(index, PRETRAIN, 5), 1: num_stage_steps(index, ALL, 5)}
    assert Counter(s.stage for s in steps) == lengths
    assert lengths[0] == 6  # 2 epochs of 13 photos
    assert all(b.offset - a.offset == 5 for a, b in pairwise(steps) if a.stage == b.stage)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_photos_fill_a_batch(count: int) -> None:
    steps = iter_steps(photo_index([1] * count), make_recipe(ONE, batch_size=16))
    assert all(len(s.order.photo) == 16 for s in steps)


def test_only_stages_with_aux_use_auxiliary_photos() -> None:
    index = photo_index([1, 1, 0], aux=2)
    assert eligible_photos(index, PRETRAIN).tolist() == [0, 1, 2, 3, 4]
    assert eligible_photos(index, with_sampling(PRETRAIN, aux=False)).tolist() == [0, 1, 2]
    index.sketch_count[4] = 2
    assert eligible_photos(index, ONE).tolist() == [0, 1]
    assert eligible_photos(index, with_sampling(ONE, aux=True)).tolist() == [0, 1, 4]


def test_a_window_has_complete_row_groups() -> None:
    index = photo_index([1] * 40, group_size=4)
    order = epoch_order(index, ONE, SEED, shuffle_window=8).photo
    for window in order.reshape(-1, 8):
        assert set(Counter(index.row_group[window]).values()) == {4}
        assert len(set(index.row_group[window])) == 2


def test_per_class_groups_classes_and_keeps_all_photos() -> None:
    index = photo_index([1] * 60, classes=6, group_size=60)
    shuffled = epoch_order(index, ONE, SEED, 60).photo
    grouped = epoch_order(index, with_sampling(ONE, per_class=3), SEED, 60).photo

    def num_same_class(order: np.ndarray) -> int:  # type: ignore[type-arg]
        return sum(a == b for a, b in pairwise(index.label[order]))

    assert sorted(grouped) == sorted(shuffled)
    assert num_same_class(grouped) >= 36 > 2 * num_same_class(shuffled)


def hard_negatives_order(index: PhotoIndex, k: int) -> Order:
    pair = replace(TO_SKETCH, candidates="hard")
    stage = replace(ONE, objective=Objective((pair,)), sampling=Sampling(hard_negatives=k))
    return epoch_order(index, stage, SEED, len(index))


def test_hard_negatives_are_other_photos_of_the_class() -> None:
    index = photo_index([1] * 12, group_size=12)
    order = hard_negatives_order(index, 6)
    assert order.hard_negatives.shape == (12, 6)
    assert (index.label[order.hard_negatives] == index.label[order.photo][:, None]).all()
    assert (order.hard_negatives != order.photo[:, None]).all()


def test_hard_negatives_differ_if_the_class_is_large_enough() -> None:
    order = hard_negatives_order(photo_index([1] * 12, classes=2, group_size=12), 5)
    assert all(len(set(row)) == 5 for row in order.hard_negatives.tolist())


def test_hard_negatives_of_a_single_photo_are_the_photo_itself() -> None:
    assert hard_negatives_order(photo_index([1]), 2).hard_negatives.tolist() == [[0, 0]]


def test_hard_negatives_of_a_class_with_one_photo_are_of_other_classes() -> None:
    order = hard_negatives_order(photo_index([1] * 4, classes=4), 3)
    assert (order.hard_negatives != order.photo[:, None]).all()


@pytest.mark.parametrize(("sketches", "text_key"), [(0, 0), (1, UNKNOWN)])
def test_a_stage_without_eligible_photos_is_refused(sketches: int, text_key: int) -> None:
    index = photo_index([sketches] * 2)
    index.text_key[:] = text_key
    with pytest.raises(InputError, match=r"stages\.sketch: no photo has sketch and photo and text"):
        num_stage_steps(index, ONE, 4)


def test_a_stage_with_texts_excludes_photos_without_a_caption() -> None:
    index = photo_index([1, 1, 1])
    index.text_key[1] = UNKNOWN
    assert eligible_photos(index, ONE).tolist() == [0, 2]


def test_text_hashes_are_equal_for_equal_strings_only() -> None:
    assert hash_text("red chair") == hash_text("red chair") != hash_text("red chairs")
    assert 0 <= hash_text("") < 2**63
