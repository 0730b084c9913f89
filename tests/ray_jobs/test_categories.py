from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.recipes import recipe
from ray_jobs.training.class_labels import indexed, keep
from stbir.config import Recipe
from stbir.data.photo_index import UNKNOWN
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.training.clusters import cluster


def clustered(count: int) -> Recipe:
    return replace(recipe("smoke"), num_clusters=count)


def test_what_lies_together_is_one_cluster() -> None:
    dice = np.random.default_rng(0)
    centres = np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 5]
    labels = cluster(centres + dice.normal(0, 0.05, centres.shape).astype(np.float32), 4, seed=0)
    groups = {frozenset(np.flatnonzero(labels == label).tolist()) for label in range(4)}
    assert groups == {frozenset(range(start, 20, 4)) for start in range(4)}


def test_photos_without_labels_get_clusters_and_others_stay_as_they_are(shards: str) -> None:
    there = open_shards(shards)
    photos, classes = indexed(clustered(3), there, ["train"], [there])
    assert classes == ["cluster 0", "cluster 1", "cluster 2"]
    assert set(photos.label[~photos.aux]) == {0, 1, 2}
    assert set(photos.label[photos.aux]) == {UNKNOWN}
    again, _ = indexed(clustered(3), there, ["train"], [there])
    assert again.digest == photos.digest
    by_hand, names = indexed(recipe("smoke"), there, ["train"], [there])
    assert by_hand.digest != photos.digest
    assert not set(names) & set(classes)


def test_a_run_goes_on_with_the_clusters_it_began_with(shards: str, tmp_path: Path) -> None:
    there = open_shards(shards)
    photos, _ = indexed(clustered(3), there, ["train"])
    moved = replace(photos, label=(photos.label + 1) % 3)
    keep(moved, str(tmp_path))
    assert indexed(clustered(3), there, ["train"], [], str(tmp_path))[0].digest == photos.digest
    r = clustered(3)
    checkpoint.save(str(tmp_path), "step-0", build(r.model), r, made_from="", counts={})
    assert indexed(clustered(3), there, ["train"], [], str(tmp_path))[0].digest == moved.digest


def test_a_recipe_that_needs_no_classes_makes_no_clusters(shards: str) -> None:
    plain = replace(recipe("smoke_without_category"), num_clusters=3)
    assert indexed(plain, open_shards(shards), ["train"])[1] == []


def test_more_clusters_than_photos_are_refused(shards: str) -> None:
    with pytest.raises(InputError, match="photos cannot make 5000; --set num_clusters=N"):
        indexed(clustered(5000), open_shards(shards), ["train"])
