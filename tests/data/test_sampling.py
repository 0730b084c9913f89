"""The order of training: complete, decided by the seed, the same from any cursor."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import PHOTO_TO_TEXT, TO_SKETCH
from stbir.config import Recipe, Stage
from stbir.data.photo_index import UNKNOWN, Photos, key
from stbir.data.sampling import Step, eligible, epoch_order, samples_an_epoch, steps, steps_of
from stbir.errors import InputError


def photos(sketches: list[int], aux: int = 0, group: int = 4, classes: int = 3) -> Photos:
    counts = np.array(sketches + [0] * aux)
    n = len(counts)
    numbers = np.arange(n)
    return Photos(
        places=[("memory://x", "0.parquet", g) for g in range(-(-n // group))],
        place=numbers // group,
        row=numbers % group,
        sketches=counts,
        label=np.where(numbers < len(sketches), numbers % classes, -1),
        text_key=numbers,
        aux=numbers >= len(sketches),
        texts=[str(i) for i in numbers],
        ids=[str(i) for i in numbers],
    )


ONE = Stage("sketch", ("sketch",), (TO_SKETCH,), 2)
ALL = replace(ONE, sketches="all")
CLIP = Stage("pretrain", ("photo", "text"), (PHOTO_TO_TEXT,), 2, aux=True)


def plan(stages: tuple[Stage, ...], batch: int = 5, seed: int = 0, shuffle: int = 8) -> Recipe:
    return replace(recipe("smoke"), stages=stages, batch_size=batch, seed=seed, shuffle_window=shuffle)


def drawn(found: list[Step]) -> list[tuple[int, int]]:
    return [pair for s in found for pair in zip(s.order.photo.tolist(), s.order.sketch.tolist(), strict=True)]


def test_every_sketch_stands_exactly_once_in_an_epoch() -> None:
    index = photos([2, 0, 1, 3, 1, 1, 2, 4, 1])
    got = drawn(list(steps(index, plan((ALL,)))))[: samples_an_epoch(index, ALL)]
    assert Counter(got) == Counter((p, s) for p, n in enumerate(index.sketches) for s in range(n))


def test_one_sketch_a_photo_is_one_it_has_and_varies() -> None:
    index = photos([3] * 30)
    got = drawn(list(steps(index, plan((ONE,)))))
    assert Counter(p for p, _ in got[:30]) == Counter(range(30))
    assert {s for _, s in got} == {0, 1, 2}


def test_epochs_differ_and_the_seed_decides() -> None:
    index = photos([1] * 20)
    orders = [
        epoch_order(index, ONE, (seed, 0, epoch), 20).photo.tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert epoch_order(index, ONE, (0, 0, 0), 20).photo.tolist() == orders[0]


@pytest.mark.parametrize("done", [0, 1, 3, 7, 8, 11])
def test_a_cursor_gives_the_rest_of_the_same_order(done: int) -> None:
    index, r = photos([2, 1, 1, 3, 1, 1, 2, 1], aux=5), plan((CLIP, ALL))
    whole = list(steps(index, r))
    rest = list(steps(index, r, done))
    assert [(s.stage, s.number, s.first) for s in rest] == [
        (s.stage, s.number, s.first) for s in whole[done:]
    ]
    assert drawn(rest) == drawn(whole[done:])


def test_every_step_is_full_and_stages_have_their_length() -> None:
    index, r = photos([2, 1, 1, 3, 1, 1, 2, 1], aux=5), plan((CLIP, ALL))
    whole = list(steps(index, r))
    assert {len(s.order.photo) for s in whole} == {5}
    assert Counter(s.stage for s in whole) == {0: steps_of(index, CLIP, 5), 1: steps_of(index, ALL, 5)}
    assert steps_of(index, CLIP, 5) == 6  # 2 epochs of 13 photos
    assert all(b.first - a.first == 5 for a, b in pairwise(whole) if a.stage == b.stage)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_photos_fills_a_batch(count: int) -> None:
    index = photos([1] * count)
    assert all(len(s.order.photo) == 16 for s in steps(index, plan((ONE,), batch=16)))


def test_extra_photos_serve_the_stages_that_take_them() -> None:
    index = photos([1, 1, 0], aux=2)
    assert eligible(index, CLIP).tolist() == [0, 1, 2, 3, 4]
    assert eligible(index, replace(CLIP, aux=False)).tolist() == [0, 1, 2]
    index.sketches[4] = 2
    assert eligible(index, ONE).tolist() == [0, 1]
    assert eligible(index, replace(ONE, aux=True)).tolist() == [0, 1, 4]


def test_a_window_holds_whole_row_groups() -> None:
    index = photos([1] * 40, group=4)
    order = epoch_order(index, ONE, (0, 0, 0), shuffle=8).photo
    for window in order.reshape(-1, 8):
        assert all(Counter(index.place[window]).values())
        assert len(set(index.place[window])) == 2


def test_grouping_brings_classes_together_and_loses_nothing() -> None:
    index = photos([1] * 60, classes=6, group=60)
    loose = epoch_order(index, ONE, (0, 0, 0), 60).photo
    tight = epoch_order(index, replace(ONE, per_class=3), (0, 0, 0), 60).photo

    def mates(order: np.ndarray) -> int:  # type: ignore[type-arg]
        return sum(a == b for a, b in pairwise(index.label[order]))

    assert sorted(tight) == sorted(loose)
    assert mates(tight) >= 36 > 2 * mates(loose)


def test_drawn_negatives_share_the_class_and_are_other_photos() -> None:
    index = photos([1] * 12, group=12)
    order = epoch_order(index, replace(ONE, negatives="stored", hard_negatives=6), (0, 0, 0), 12)
    assert order.hard_negatives.shape == (12, 6)
    assert (index.label[order.hard_negatives] == index.label[order.photo][:, None]).all()
    assert (order.hard_negatives != order.photo[:, None]).all()


def test_drawn_negatives_are_different_ones_where_there_are_as_many() -> None:
    index = photos([1] * 12, classes=2, group=12)
    order = epoch_order(index, replace(ONE, negatives="stored", hard_negatives=5), (0, 0, 0), 12)
    assert all(len(set(row)) == 5 for row in order.hard_negatives.tolist())


def test_a_lone_photo_has_no_negative_but_itself() -> None:
    order = epoch_order(photos([1]), replace(ONE, negatives="stored", hard_negatives=2), (0, 0, 0), 1)
    assert order.hard_negatives.tolist() == [[0, 0]]


def test_a_photo_alone_in_its_class_draws_from_others() -> None:
    index = photos([1] * 4, classes=4)
    order = epoch_order(index, replace(ONE, negatives="stored", hard_negatives=3), (0, 0, 0), 4)
    assert (order.hard_negatives != order.photo[:, None]).all()


def test_data_that_lacks_what_the_stage_needs_is_refused() -> None:
    with pytest.raises(InputError, match=r"stages\.sketch: no photo has sketch and photo and text"):
        steps_of(photos([0, 0]), ONE, 4)
    index = photos([1, 1])
    index.text_key[:] = UNKNOWN
    with pytest.raises(InputError, match=r"stages\.sketch: no photo has sketch and photo and text"):
        steps_of(index, ONE, 4)


def test_a_photo_without_a_caption_serves_no_stage_that_reads_it() -> None:
    index = photos([1, 1, 1])
    index.text_key[1] = UNKNOWN
    assert eligible(index, ONE).tolist() == [0, 2]


def test_keys_are_equal_for_equal_strings_only() -> None:
    assert key("red chair") == key("red chair") != key("red chairs")
    assert 0 <= key("") < 2**63
