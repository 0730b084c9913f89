"""Calibration: of a checkpoint by the command, and of the published one at the end of training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.calibrate import main, parser
from ray_jobs.cluster import requirements
from ray_jobs.jobs.train import _calibrate, initialize_checkpoint
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training.job import last_checkpoint, num_completed_steps
from stbir.data.photo_index import PhotoIndex, build_photo_index
from stbir.data.sampling import MIN_CALIBRATION_PHOTOS, calibration_photos
from stbir.data.shards import Shards, open_shards
from stbir.embedding.calibration import calibrate
from stbir.embedding.queries import embed
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.model import checkpoint, hubness
from stbir.model.builder import build_retriever
from stbir.model.hubness import HubnessCorrection
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.ray_jobs.local_run import local_job, run_locally
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint


@pytest.fixture(scope="module")
def shards(local_shards: str) -> Shards:
    return open_shards(local_shards)


@pytest.fixture(scope="module")
def photos(shards: Shards) -> PhotoIndex:
    return build_photo_index(shards, ["train"], [])


def run(*options: str) -> dict[str, Any]:
    return main(parser().parse_args(options))


def linear_error(x: Features, y: Features) -> float:
    """The largest deviation of `y` from an increasing linear function of `x`."""
    slope, offset = np.polyfit(x.ravel(), y.ravel(), 1)
    assert slope > 0
    return float(np.abs(slope * x + offset - y).max())


def test_scores_are_csls_over_the_training_queries(
    photos: PhotoIndex, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubness, "MAX_DEVIATION", 1.0)  # nothing is clamped
    plain, corrected = (build_retriever(recipe("smoke").model) for _ in range(2))
    calibrate(corrected, recipe("smoke").model, photos)
    train, test = (embed(plain, list(shards.iter_rows(split))) for split in ("train", "test"))
    after = embed(corrected, list(shards.iter_rows("test")))
    for name in ("sketch_SD", "text_TD"):
        queries = getattr(train, name)
        nearest_PK = np.sort(test.photo_ND @ queries.T, axis=1)[:, -hubness.NUM_NEIGHBOURS :]
        csls = getattr(test, name) @ test.photo_ND.T - hubness.CORRECTION_WEIGHT * nearest_PK.mean(1)
        scores = getattr(after, name) @ after.photo_ND.T
        # Equal but for one scale and one offset, which keep the order; plain cosines are not.
        cosines = getattr(test, name) @ test.photo_ND.T
        assert linear_error(csls, scores) < 1e-5
        assert linear_error(cosines, scores) > 1e-3


def test_the_command_publishes_a_corrected_checkpoint_and_can_be_repeated(
    local_shards: str, tmp_path: Path
) -> None:
    source, out = save_smoke_checkpoint(str(tmp_path / "source")), str(tmp_path / "out")
    options = ["--checkpoint", source, "--shards", local_shards, "--out", out]
    result = run(*options)
    model = checkpoint.read_recipe(out).model
    assert result["made_from"] == checkpoint.read_digest(source)
    assert (result["queries"], result["dim"]) == (model.hubness, 40)
    checkpoint.verify(out, result["digest"])
    correction = checkpoint.load(out, "photo").hubness
    assert isinstance(correction, HubnessCorrection)
    assert correction.measured
    card = Folder(out).read("step-00000000-calibrated/MODEL_CARD.md").decode()
    assert "hubness correction" in card
    assert run(*options) == result
    with pytest.raises(InputError, match="contains another checkpoint; choose another folder"):
        run("--checkpoint", save_smoke_checkpoint(str(tmp_path / "b"), seed=1), *options[2:])
    again = run("--checkpoint", out, "--shards", local_shards, "--out", str(tmp_path / "again"))
    for name, tensor in checkpoint.load(out).state_dict().items():
        np.testing.assert_allclose(checkpoint.load(again["checkpoint"]).state_dict()[name], tensor, atol=1e-5)


@pytest.mark.slow(reason="trains, in this process")
def test_the_end_of_training_calibrates_the_published_checkpoint(local_shards: str, tmp_path: Path) -> None:
    stages = tuple(replace(stage, epochs=1) for stage in recipe("smoke").stages[:1])
    job = local_job(replace(recipe("smoke"), stages=stages, calibrate=True), local_shards, str(tmp_path))
    assert run_locally(job) is None
    before = last_checkpoint(job.out).uri
    _calibrate(job)
    manifest = read_manifest(Folder(job.out), "checkpoint")
    assert manifest.detail("folder") == f"step-{sum(job.steps):08d}-calibrated"
    assert manifest.details["calibrated"] == {"photos": job.photos.digest, "data": job.data_digests}
    assert checkpoint.load(job.out).dim == 40
    # A repeated run finds the complete training, and keeps the calibrated checkpoint.
    assert last_checkpoint(job.out).uri == before
    assert num_completed_steps(job.out) == sum(job.steps)
    initialize_checkpoint(job, None)
    _calibrate(job)
    assert read_manifest(Folder(job.out), "checkpoint") == manifest


def test_too_few_photos_are_refused_before_training(photos: PhotoIndex) -> None:
    assert MIN_CALIBRATION_PHOTOS > hubness.NUM_NEIGHBOURS
    few = photos.sketch_count.copy()
    few[MIN_CALIBRATION_PHOTOS - 1 :] = 0
    with pytest.raises(InputError, match=r"calibrate: 10 photos have sketches and a caption, fewer than 11"):
        requirements.samples(replace(photos, sketch_count=few), override(recipe("smoke"), ["calibrate=true"]))


def test_auxiliary_photos_are_left_out_and_the_others_evenly_spaced(photos: PhotoIndex) -> None:
    aux = np.arange(len(photos)) % 2 == 0
    chosen = calibration_photos(replace(photos, aux=aux), 5)
    assert len(set(chosen.tolist())) == 5
    assert (chosen % 2 == 1).all()
    assert (chosen[0], chosen[-1]) == (1, np.flatnonzero(~aux)[-1])


@pytest.mark.parametrize("field", ["stages.text.hubness", "model.hubness", "model.hubness_dims"])
def test_the_former_fields_name_the_new_one(field: str) -> None:
    with pytest.raises(InputError, match=f"'{field}' is now 'calibrate'"):
        override(recipe("smoke"), [f"{field}=3"])
