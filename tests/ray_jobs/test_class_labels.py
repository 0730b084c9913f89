from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.recipes import recipe
from ray_jobs.recipes.available_classes import with_available_classes
from ray_jobs.training.class_labels import index_photos_with_labels, save_clusters
from stbir.config import Recipe
from stbir.data.photo_index import UNKNOWN
from stbir.data.shard_writer import publish, write_rows
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from stbir.training.clusters import cluster


def with_clusters(num_clusters: int) -> Recipe:
    return replace(recipe("smoke"), num_clusters=num_clusters)


def test_separated_features_form_their_own_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 5]
    labels = cluster(centres + rng.normal(0, 0.05, centres.shape).astype(np.float32), 4, seed=0)
    groups = {frozenset(np.flatnonzero(labels == label).tolist()) for label in range(4)}
    assert groups == {frozenset(range(start, 20, 4)) for start in range(4)}


def test_clusters_label_all_but_auxiliary_photos(local_shards: str) -> None:
    shards = open_shards(local_shards)
    photos, classes = index_photos_with_labels(with_clusters(3), shards, ["train"], [shards])
    assert classes == ["cluster 0", "cluster 1", "cluster 2"]
    assert set(photos.label[~photos.aux]) == {0, 1, 2}
    assert set(photos.label[photos.aux]) == {UNKNOWN}
    repeated, _ = index_photos_with_labels(with_clusters(3), shards, ["train"], [shards])
    assert repeated.digest == photos.digest
    labelled, names = index_photos_with_labels(recipe("smoke"), shards, ["train"], [shards])
    assert labelled.digest != photos.digest
    assert not set(names) & set(classes)


def test_resumed_run_reads_its_saved_clusters(local_shards: str, tmp_path: Path) -> None:
    shards = open_shards(local_shards)
    photos, _ = index_photos_with_labels(with_clusters(3), shards, ["train"])
    moved = replace(photos, label=(photos.label + 1) % 3)
    save_clusters(moved, str(tmp_path))
    r = with_clusters(3)
    assert index_photos_with_labels(r, shards, ["train"], [], str(tmp_path))[0].digest == photos.digest
    checkpoint.save(str(tmp_path), "step-0", build_retriever(r.model), r, made_from="", counts={})
    assert index_photos_with_labels(r, shards, ["train"], [], str(tmp_path))[0].digest == moved.digest


def test_one_cluster_is_one_class_and_needs_no_model(
    local_shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("ray_jobs.training.class_labels.build_retriever")
    photos, classes = index_photos_with_labels(
        recipe("smoke_without_category"), open_shards(local_shards), ["train"]
    )
    assert classes == ["cluster 0"]
    assert set(photos.label) == {0}


def test_recipe_that_needs_no_classes_gets_no_clusters(local_shards: str) -> None:
    plain = replace(recipe("smoke"), stages=recipe("smoke").stages[:1], num_clusters=3)
    assert index_photos_with_labels(plain, open_shards(local_shards), ["train"])[1] == []


def test_more_clusters_than_photos_are_rejected(local_shards: str) -> None:
    with pytest.raises(InputError, match=r"5000 is more than the \d+ photos; --set num_clusters=N"):
        index_photos_with_labels(with_clusters(5000), open_shards(local_shards), ["train"])


def test_shards_without_classes_are_trained_with_clusters_or_without_the_class_term(
    local_shards: str, tmp_path: Path
) -> None:
    rows = list(open_shards(local_shards).iter_rows("train"))
    for row in rows:
        row["class"] = None
    copies = [{**row, "photo_id": f"{row['photo_id']} {n}"} for n in range(10) for row in rows]
    for name, content, expected in (
        ("few", rows, "smoke_without_category"),
        ("many", copies, "smoke_with_clusters"),
    ):
        folder = Folder(str(tmp_path / name))
        publish(folder, [write_rows(folder, 0, content)], {}, {})  # type: ignore[arg-type]
        changed, note = with_available_classes(recipe("smoke"), open_shards(folder.uri), ["train"])
        assert changed == recipe(expected)
        assert f"no photo has a class; {'24 clusters' if name == 'many' else f'{len(rows)} photos'}" in str(
            note
        )
        assert with_available_classes(changed, open_shards(folder.uri), ["train"]) == (changed, None)
    shards = open_shards(local_shards)
    assert with_available_classes(recipe("smoke"), shards, ["train"]) == (recipe("smoke"), None)
