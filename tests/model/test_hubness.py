"""Hubness correction equals CSLS computed by an explicit loop."""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_jobs.recipes import recipe
from stbir.config import HUBNESS_DIMS, MODALITIES, Modality, ModelConfig
from stbir.model import checkpoint, hubness
from stbir.model.builder import build_retriever
from stbir.model.fusion import fuse
from stbir.model.hubness import HubnessCorrection, HubnessQueryHead
from stbir.model.retriever import Retriever

WIDTH, NUM_PHOTOS = 6, 9
MODEL = recipe("smoke").model


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
    no_photo = [torch.full((len(part),), -1) for part in queries]
    correction.measure(queries, no_photo, photos)
    heads = (HubnessQueryHead("sketch"), HubnessQueryHead("text"))
    for head in heads:
        head.share.fill_(hubness.CORRECTION_WEIGHT)
    return Measured(correction, heads, photos, queries)


def slow_similarity(photo: Tensor, queries: Iterable[Tensor]) -> float:
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


def test_mean_leaves_out_the_own_queries_of_each_photo() -> None:
    """Each photo's own queries equal it, so that they would be the nearest."""
    photos = units(NUM_PHOTOS, 0)
    photo_of = [torch.arange(2 * NUM_PHOTOS) // 2, torch.arange(2 * NUM_PHOTOS) % NUM_PHOTOS]
    queries = [photos[owner] for owner in photo_of]
    correction = HubnessCorrection(WIDTH, 2 * NUM_PHOTOS)
    correction.measure(queries, photo_of, photos)
    for mean, query_ND, owner_N in zip(correction.mean_similarity, queries, photo_of, strict=True):
        others = [
            slow_similarity(photo, [q for q, owner in zip(query_ND, owner_N, strict=True) if owner != number])
            for number, photo in enumerate(photos)
        ]
        assert float(mean) == pytest.approx(sum(others) / NUM_PHOTOS)
        assert float(mean) < sum(slow_similarity(photo, query_ND) for photo in photos) / NUM_PHOTOS - 0.01


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


def features() -> dict[Modality, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {name: F.normalize(torch.randn(12, MODEL.dim, generator=rng), dim=-1) for name in MODALITIES}


def calibrated(gate: int = 0) -> tuple[Retriever, ModelConfig]:
    model = replace(MODEL, gate=gate).with_hubness(8)
    retriever = build_retriever(replace(MODEL, gate=gate))
    measure_model(retriever, model)
    return retriever, model


def measure_model(retriever: Retriever, model: ModelConfig, **changes: Tensor) -> None:
    photo_of: dict[Modality, Tensor] = {"sketch": torch.arange(12), "text": torch.arange(12)}
    retriever.measure_hubness(
        {**features(), **changes},  # type: ignore[dict-item]
        photo_of,
        model.hubness,
        model.hubness_dims,
    )


def inputs(retriever: Retriever) -> dict[Modality, Tensor]:
    image = torch.randint(
        0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    tokens = retriever.text.tokenize(["green mug, thin handle", "red mug"])
    return {"photo": image, "sketch": image, "text": tokens}


def test_checkpoint_contains_the_measurement(tmp_path: Path) -> None:
    retriever, model = calibrated(gate=2)
    config = replace(recipe("smoke"), model=model)
    checkpoint.save(str(tmp_path), "step-1", retriever, config, made_from="", counts={"steps": 1})
    opened = checkpoint.load(str(tmp_path))
    assert opened.dim == opened.sketch.dim == opened.text.dim == model.width == 40  # 32 + 3, a multiple of 8
    for part, rows in inputs(retriever).items():
        vectors = opened.encoder(part)(rows)
        assert vectors.shape == (2, model.width)
        assert torch.equal(vectors, retriever.encoder(part)(rows))
        assert vectors[:, MODEL.dim : MODEL.dim + HUBNESS_DIMS].any()


@pytest.mark.parametrize("dim", [32, 37, 509, 512])
def test_corrected_embeddings_are_a_multiple_of_eight_wide(dim: int) -> None:
    model = replace(MODEL, dim=dim)
    assert model.with_hubness(8).width in range(dim + HUBNESS_DIMS, dim + HUBNESS_DIMS + 8)
    assert model.with_hubness(8).width % 8 == 0
    assert model.with_hubness(8).without_hubness() == model


def test_second_measurement_replaces_the_first() -> None:
    retriever, model = calibrated(gate=2)
    rng = torch.Generator().manual_seed(1)
    other = F.normalize(torch.randn(12, MODEL.dim, generator=rng), dim=-1)
    before = retriever.photo(inputs(retriever)["photo"])
    measure_model(retriever, model, sketch=other)
    again = build_retriever(replace(MODEL, gate=2))
    measure_model(again, model, sketch=other)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, retriever.state_dict()[name])
    assert not torch.equal(before, retriever.photo(inputs(retriever)["photo"]))


def test_the_fusion_gate_keeps_its_output() -> None:
    model, rng = replace(MODEL, gate=3), torch.Generator().manual_seed(0)
    retriever = build_retriever(model)
    assert retriever.gate is not None
    for parameter in retriever.gate.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng)
    for _ in range(2):  # of a former correction too
        rows = inputs(retriever)
        before = retriever.gate(retriever.sketch(rows["sketch"]), retriever.text(rows["text"]))
        measure_model(retriever, model.with_hubness(8))
        after = retriever.gate(retriever.sketch(rows["sketch"]), retriever.text(rows["text"]))
        assert torch.allclose(before, after, atol=1e-5)
        assert before.abs().min() > 0.1


def test_checkpoint_written_before_calibration_has_the_same_vectors(tmp_path: Path) -> None:
    """Of 5 dimensions and 3 for hubness, measured before stage `fusion`; `vectors` are what it gave then."""
    with zipfile.ZipFile(Path(__file__).with_name("old_checkpoints") / "hubness.zip") as archive:
        archive.extractall(tmp_path)
    expected = safetensors.torch.load_file(tmp_path / "vectors.safetensors")
    retriever = checkpoint.load(str(tmp_path))
    pixels = torch.arange(2 * 3 * 16 * 16).square().remainder(251).to(torch.uint8).view(2, 3, 16, 16)
    sketch, tokens = pixels.flip(0)[:, :1], retriever.text.tokenize(["a red chair", "wooden legs"])
    with torch.no_grad():
        actual = {
            "photo": retriever.encode_photo(pixels),
            "sketch": retriever.encode_sketch(sketch),
            "text": retriever.encode_text(tokens),
            "query": retriever.encode_query(sketch, tokens, 0.4),
        }
    assert actual.keys() == expected.keys()
    for name, vectors in actual.items():
        assert vectors.shape == (2, 8)
        assert torch.allclose(vectors, expected[name], atol=1e-6)
    assert checkpoint.read_recipe(str(tmp_path)).calibrate
