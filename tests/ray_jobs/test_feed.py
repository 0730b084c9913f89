"""What Ray Data hands to the workers is the plan, whatever the number of workers and the cursor."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from ray_jobs import decoding, feed
from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import SKETCH_NOISE, joint, weigh
from ray_jobs.train_job import STEPS_IN_FLIGHT
from stbir.config import Augment, Recipe, Stage
from stbir.data.batch import Batch, Encoded
from stbir.data.photos import Photos, index_photos
from stbir.data.plan import steps
from stbir.data.shards import open_shards


@pytest.fixture(scope="module")
def small() -> Recipe:
    r = recipe("smoke")
    return replace(r, stages=r.stages[:2], batch=8, shuffle=16)


@pytest.fixture(scope="module")
def photos(ray_cluster: str, shards: str) -> Photos:
    return index_photos(open_shards(shards), ["train"], [])


def rows(photos: Photos, r: Recipe, done: int, workers: int) -> list[Batch]:
    return list(feed.batches(feed.stream(photos, r, done, workers).iterator()))


def test_the_stream_is_the_plan(photos: Photos, small: Recipe) -> None:
    got = rows(photos, small, done=0, workers=1)
    expected = [step.order.photo.tolist() for step in steps(photos, small)]
    assert [batch.photo.tolist() for batch in got] == expected
    assert all(batch.photos is not None and batch.photos.shape == (8, 3, 32, 32) for batch in got)
    assert [batch.texts for batch in got] == [[photos.texts[i] for i in batch.photo] for batch in got]
    first_stage = [step.stage == 0 for step in steps(photos, small)]
    assert [batch.sketches is None for batch in got] == first_stage


def test_made_in_this_process_it_is_the_same(photos: Photos, small: Recipe) -> None:
    small = replace(small, augment=Augment(words=0.5))
    for here, there in zip(
        decoding.local(photos, small), rows(photos, small, done=0, workers=1), strict=True
    ):
        assert (here.stage, here.number, here.texts) == (there.stage, there.number, there.texts)
        assert here.photo.tolist() == there.photo.tolist()
        for name in feed.PICTURES:
            assert np.array_equal(getattr(here, name), getattr(there, name))


def test_two_workers_and_a_cursor_see_the_same_pictures_in_the_same_order(
    photos: Photos, small: Recipe
) -> None:
    small = replace(small, augment=Augment(words=0.5))
    alone = rows(photos, small, done=0, workers=1)[3:]
    shares = rows(photos, small, done=3, workers=2)
    assert len(shares) == 2 * len(alone)
    for step, batch in enumerate(alone):
        pair = shares[2 * step : 2 * step + 2]
        assert np.concatenate([share.photo for share in pair]).tolist() == batch.photo.tolist()
        assert [text for share in pair for text in share.texts or []] == batch.texts
        for name in feed.PICTURES:
            whole = getattr(batch, name)
            if whole is not None:
                assert (np.concatenate([getattr(share, name) for share in pair]) == whole).all()


def noise_of(stage: Stage) -> dict[str, Any]:
    rows = Encoded(0, 0, 1, np.arange(2), np.zeros(2, np.int64), np.arange(2), [], [], [])
    return decoding._noise(
        rows, replace(recipe("smoke"), model=replace(recipe("smoke").model, gate=4), stages=(stage,)), [10]
    )


@pytest.mark.parametrize(
    ("name", "noisy"),
    [("sketch", {"sketch_noise"}), ("image", {"photo_noise"})],
)
def test_only_what_learns_is_corrupted(name: str, noisy: set[str]) -> None:
    [stage] = [stage for stage in recipe("smoke").stages if stage.name == name]
    assert noise_of(stage).keys() == noisy | {"poor"}
    assert not noise_of(stage)["poor"]


def test_poor_queries_are_of_sketches_and_texts_that_learn() -> None:
    poor = replace(SKETCH_NOISE, kind="query")
    assert noise_of(replace(joint(1), noise=poor)).keys() == {"sketch_noise", "text_noise", "poor"}
    drawing = noise_of(replace(joint(1), noise=replace(poor, kind="drawing")))
    assert drawing.keys() == {"sketch_noise", "poor"}
    assert drawing["poor"]
    [sketch] = [stage for stage in recipe("smoke").stages if stage.name == "sketch"]
    found = noise_of(replace(sketch, noise=poor))
    assert found.keys() == {"sketch_noise", "poor"}
    assert found["poor"]


def test_the_gate_learns_from_poor_queries_of_towers_that_stand_still() -> None:
    assert noise_of(weigh(1, 1e-3)).keys() == {"sketch_noise", "text_noise", "poor"}


def test_without_a_curriculum_nothing_is_corrupted() -> None:
    assert noise_of(joint(1)) == {}


def test_the_object_store_holds_some_steps_however_long_the_run(ray_cluster: str, small: Recipe) -> None:
    few, many = (replace(small, stages=(replace(small.stages[0], epochs=n),)) for n in (1, 1000))
    assert feed.room(few) == feed.room(many)
    assert feed.room(few).object_store_memory == STEPS_IN_FLIGHT * 8 * (3 + 1) * 32 * 32


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has it")
def test_decoding_takes_what_training_leaves(photos: Photos, small: Recipe) -> None:
    @ray.remote
    def policy() -> int:
        [step, *_] = feed._read(
            pa.Table.from_pylist(decoding.ranges(photos, small, 0)[:1]), ray.put(photos), small, 1, True
        )
        feed._decode(step, small, [8, 8], spare=True)
        return os.sched_getscheduler(0)

    assert ray.get(policy.options(runtime_env={"env_vars": {"OF": "its own"}}).remote()) == os.SCHED_IDLE
