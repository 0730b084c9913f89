"""Hubness correction equals CSLS computed by an explicit loop."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_jobs.recipes import recipe
from stbir.config import HUBNESS_DIMS, MODALITIES, Modality, ModelConfig
from stbir.errors import InputError
from stbir.model import checkpoint, hubness
from stbir.model.builder import build_retriever
from stbir.model.fusion import fuse
from stbir.model.hubness import HubnessCorrection, HubnessQueryHead

WIDTH, NUM_PHOTOS = 6, 9
MODEL = replace(recipe("smoke").model, hubness=8)


def units(count: int, seed: int) -> Tensor:
    """Unit vectors around a common mean, as features are, so that hubness differs between photos."""
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, WIDTH, generator=rng) * 0.2 + torch.ones(WIDTH) * 0.4, dim=-1)


@dataclass(frozen=True)
class Measured:
    """Modules that are measured on photos and queries, and these."""

    correction: HubnessCorrection
    heads: tuple[HubnessQueryHead, HubnessQueryHead]  # of sketches and texts
    photos: Tensor
    queries: list[Tensor]

    def scores(self, query: Tensor, modality: int) -> Tensor:
        return self.heads[modality](query) @ self.correction(self.photos).T  # type: ignore[no-any-return]


def measure(num_queries: int = 16) -> Measured:
    photos, queries = units(NUM_PHOTOS, 0), [units(16, 1), units(12, 2)]
    correction = HubnessCorrection(WIDTH, num_queries)
    correction.measure(queries, photos)
    heads = (HubnessQueryHead("sketch"), HubnessQueryHead("text"))
    for head in heads:
        head.share.fill_(hubness.CORRECTION_WEIGHT)
    return Measured(correction, heads, photos, queries)


def slow_similarity(photo: Tensor, queries: Tensor) -> float:
    cosines = sorted((float(photo @ query) for query in queries), reverse=True)[: hubness.NUM_NEIGHBOURS]
    return sum(cosines) / hubness.NUM_NEIGHBOURS


@pytest.mark.parametrize("modality", [0, 1])
def test_ranking_equals_csls(modality: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubness, "MAX_DEVIATION", 1.0)  # nothing is clamped
    measured = measure()
    penalties = [
        hubness.CORRECTION_WEIGHT * slow_similarity(photo, measured.queries[modality])
        for photo in measured.photos
    ]
    queries = units(5, 3)
    for query, scores in zip(queries, measured.scores(queries, modality), strict=True):
        csls = measured.photos @ query - torch.tensor(penalties)
        assert scores.argsort().tolist() == csls.argsort().tolist()
        ratios = (scores - scores[0]) / (csls - csls[0])
        assert torch.allclose(ratios[1:], ratios[1:2].expand(NUM_PHOTOS - 1), rtol=1e-3)


def test_deviation_is_clamped_and_photos_keep_equal_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """If photos had different lengths before normalisation, their order would change."""
    monkeypatch.setattr(hubness, "MAX_DEVIATION", 0.02)
    measured = measure()
    similarity = torch.tensor(
        [[slow_similarity(photo, queries) for queries in measured.queries] for photo in measured.photos]
    )
    deviation = (similarity - similarity.mean(0)).clamp(-0.02, 0.02)
    assert (deviation.abs() == 0.02).any()
    assert (deviation.abs() < 0.02).any()
    queries = units(5, 3)
    for query, scores in zip(queries, measured.scores(queries, modality=0), strict=True):
        expected = measured.photos @ query - hubness.CORRECTION_WEIGHT * deviation[:, 0]
        assert torch.allclose(scores * (1.25 * (1 + 2 * 0.02**2)) ** 0.5, expected, atol=1e-5)


def test_fused_query_is_corrected_by_the_weights_of_its_modalities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubness, "MAX_DEVIATION", 1.0)
    measured = measure()
    sketch, text = units(1, 4), units(1, 5)
    fused = fuse(measured.heads[0](sketch), measured.heads[1](text), 0.7)
    scores = (fused @ measured.correction(measured.photos).T)[0]
    mixed = (0.7 * sketch + 0.3 * text)[0]
    csls = []
    for photo in measured.photos:
        by_sketch, by_text = (slow_similarity(photo, queries) for queries in measured.queries)
        csls.append(float(mixed @ photo) - hubness.CORRECTION_WEIGHT * (0.7 * by_sketch + 0.3 * by_text))
    assert scores.argsort().tolist() == torch.tensor(csls).argsort().tolist()


def test_all_vectors_have_unit_length() -> None:
    measured = measure()
    for module in (measured.correction, *measured.heads):
        vectors = module(measured.photos)
        assert vectors.shape[1] == WIDTH + HUBNESS_DIMS
        assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_unmeasured_correction_changes_no_score() -> None:
    photos, queries = units(NUM_PHOTOS, 0), units(4, 1)
    scores = HubnessQueryHead("sketch")(queries) @ HubnessCorrection(WIDTH, 8)(photos).T
    assert torch.allclose(scores, queries @ photos.T, atol=1e-6)


def test_stored_queries_are_evenly_spaced_or_all() -> None:
    measured = measure(num_queries=4)
    assert torch.equal(measured.correction.queries[0], measured.queries[0][[0, 5, 10, 15]])
    measured = measure(num_queries=14)
    assert torch.equal(measured.correction.queries[1, :12], measured.queries[1])
    assert not measured.correction.queries[1, 12:].any()


def features(model: ModelConfig) -> dict[Modality, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {name: F.normalize(torch.randn(12, model.width, generator=rng), dim=-1) for name in MODALITIES}


def test_checkpoint_contains_the_measurement(tmp_path: Path) -> None:
    retriever = build_retriever(MODEL)
    retriever.measure_hubness(features(MODEL))
    config = replace(recipe("smoke"), model=MODEL)
    checkpoint.save(str(tmp_path), "step-1", retriever, config, made_from="", counts={"steps": 1})
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = retriever.text.tokenize(["green mug, thin handle"])
    for part, inputs in (("photo", image), ("sketch", image), ("text", tokens)):
        vectors = checkpoint.load(str(tmp_path), part=part)(inputs)  # type: ignore[call-overload]
        assert torch.equal(vectors, getattr(retriever, part)(inputs))
        assert vectors[:, -HUBNESS_DIMS:].any()


def test_second_measurement_is_rejected() -> None:
    retriever = build_retriever(MODEL)
    assert retriever.dim == retriever.sketch.dim == retriever.text.dim == MODEL.width == MODEL.dim + 3
    retriever.measure_hubness(features(MODEL))
    assert retriever.sketch.hubness.share == retriever.text.hubness.share == hubness.CORRECTION_WEIGHT  # type: ignore[union-attr]
    with pytest.raises(InputError, match="measured already"):
        retriever.measure_hubness(features(MODEL))


def test_model_that_has_no_correction_cannot_be_measured() -> None:
    smoke = recipe("smoke").model
    with pytest.raises(InputError, match=r"model\.hubness is 0"):
        build_retriever(smoke).measure_hubness(features(smoke))
