"""Scores that lose what a photo owes to being near to whatever is asked."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ray_jobs.recipes import recipe
from stbir.config import HUBNESS_DIMS, ModelConfig
from stbir.errors import InputError
from stbir.model import checkpoint, hubness
from stbir.model.builder import build
from stbir.model.fusion import fuse
from stbir.model.hubness import Hubness, Mark

WIDTH, PHOTOS = 6, 9
SMOKE = recipe("smoke").model


def units(count: int, seed: int) -> torch.Tensor:
    """Vectors that lean to one side, as features do, so that some photos are hubs."""
    dice = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, WIDTH, generator=dice) * 0.2 + torch.ones(WIDTH) * 0.4, dim=-1)


def measured(rows: int = 16) -> tuple[Hubness, Mark, Mark, torch.Tensor, list[torch.Tensor]]:
    photos, queries = units(PHOTOS, 0), [units(16, 1), units(12, 2)]
    hubs, marks = Hubness(WIDTH, rows), [Mark("sketch"), Mark("text")]
    hubs.measure(queries, photos)
    for mark in marks:
        mark.share.fill_(hubness.SHARE)
    return hubs, marks[0], marks[1], photos, queries


def slow_nearness(photo: torch.Tensor, queries: torch.Tensor) -> float:
    cosines = sorted((float(photo @ query) for query in queries), reverse=True)[: hubness.NEAREST]
    return sum(cosines) / hubness.NEAREST


@pytest.mark.parametrize("kind", [0, 1])
def test_the_order_is_that_of_csls_by_an_explicit_loop(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubness, "MOST", 1.0)  # so that nothing is clipped
    hubs, *marks, photos, queries = measured()
    asked = units(5, 3)
    scores = marks[kind](asked) @ hubs(photos).T
    for query, row in zip(asked, scores, strict=True):
        slow = [float(query @ p) - hubness.SHARE * slow_nearness(p, queries[kind]) for p in photos]
        assert row.argsort().tolist() == torch.tensor(slow).argsort().tolist()
        differences = (row - row[0]) / (torch.tensor(slow) - slow[0])
        assert torch.allclose(differences[1:], differences[1:2].expand(PHOTOS - 1), rtol=1e-3)


def test_what_is_beyond_the_most_counts_as_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos must all be equally long before they become unit vectors, or their order would not be kept."""
    monkeypatch.setattr(hubness, "MOST", 0.02)
    hubs, for_sketch, _, photos, queries = measured()
    near = torch.tensor([[slow_nearness(p, asked) for asked in queries] for p in photos])
    off = (near - near.mean(0)).clamp(-0.02, 0.02)
    assert (off.abs() == 0.02).any()
    assert (off.abs() < 0.02).any()
    asked = units(5, 3)
    scores = for_sketch(asked) @ hubs(photos).T
    for query, row in zip(asked, scores, strict=True):
        slow = [float(query @ p) - hubness.SHARE * float(o) for p, o in zip(photos, off[:, 0], strict=True)]
        assert torch.allclose(row * (1.25 * (1 + 2 * 0.02**2)) ** 0.5, torch.tensor(slow), atol=1e-5)


def test_what_was_measured_travels_in_the_checkpoint(tmp_path: Path) -> None:
    model = replace(SMOKE, hubness=8)
    retriever = build(model)
    retriever.measure_hubness(features(model))  # type: ignore[arg-type]
    config = replace(recipe("smoke"), model=model)
    checkpoint.save(str(tmp_path), "step-1", retriever, config, made_from="", counts={"steps": 1})
    picture = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    words = retriever.text.tokenize(["green mug, thin handle"])
    for part, asked in (("photo", picture), ("sketch", picture), ("text", words)):
        alone = checkpoint.load(str(tmp_path), part=part)  # type: ignore[call-overload]
        found, whole = alone(asked), getattr(retriever, part)(asked)
        assert torch.equal(found, whole)
        assert found[:, -HUBNESS_DIMS:].any()


def test_of_both_each_kind_is_corrected_by_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubness, "MOST", 1.0)
    hubs, for_sketch, for_text, photos, queries = measured()
    sketch, text = units(1, 4), units(1, 5)
    scores = (fuse(for_sketch(sketch), for_text(text), 0.7) @ hubs(photos).T)[0]
    mixed = (0.7 * sketch + 0.3 * text)[0]
    slow = [
        float(mixed @ p)
        - hubness.SHARE * (0.7 * slow_nearness(p, queries[0]) + 0.3 * slow_nearness(p, queries[1]))
        for p in photos
    ]
    assert scores.argsort().tolist() == torch.tensor(slow).argsort().tolist()


def test_all_vectors_have_unit_length_and_a_cosine_stays_one() -> None:
    hubs, for_sketch, for_text, photos, _ = measured()
    for vectors in (hubs(photos), for_sketch(photos), for_text(photos)):
        assert vectors.shape[1] == WIDTH + HUBNESS_DIMS
        assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_until_it_is_measured_nothing_changes() -> None:
    photos, asked = units(PHOTOS, 0), units(4, 1)
    scores = Mark("sketch")(asked) @ Hubness(WIDTH, 8)(photos).T
    assert torch.allclose(scores, asked @ photos.T, atol=1e-6)


def test_of_too_many_queries_evenly_spaced_ones_are_kept_of_few_all() -> None:
    hubs, *_, queries = measured(rows=4)
    assert torch.equal(hubs.queries[0], queries[0][[0, 5, 10, 15]])
    hubs, *_, queries = measured(rows=14)
    assert torch.equal(hubs.queries[1, :12], queries[1])
    assert not hubs.queries[1, 12:].any()


def features(model: ModelConfig) -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    names = ("sketch", "photo", "text")
    return {name: F.normalize(torch.randn(12, model.width, generator=dice), dim=-1) for name in names}


def test_a_model_is_measured_once() -> None:
    model = replace(SMOKE, hubness=8)
    retriever = build(model)
    assert retriever.dim == retriever.sketch.dim == retriever.text.dim == model.width == model.dim + 3
    retriever.measure_hubness(features(model))  # type: ignore[arg-type]
    assert retriever.sketch.hubness.share == retriever.text.hubness.share == hubness.SHARE  # type: ignore[union-attr]
    with pytest.raises(InputError, match="measured already"):
        retriever.measure_hubness(features(model))  # type: ignore[arg-type]


def test_a_model_without_a_place_for_it_says_so() -> None:
    with pytest.raises(InputError, match=r"model\.hubness: there is none"):
        build(SMOKE).measure_hubness(features(SMOKE))  # type: ignore[arg-type]
