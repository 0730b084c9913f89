import functools
from dataclasses import replace

import pytest
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import (
    INTRA_MODAL,
    SKETCH_TO_PHOTO,
    fusion,
    joint,
    with_shared_encoder,
    with_terms,
)
from stbir.config import MODALITY_OF, VIEWS, LossConstants, Objective, Stage, Trainable
from stbir.model.builder import build_retriever
from stbir.training.gradients import InputTensors, Terms, full_batch, gradient_cache
from stbir.training.losses import stage_loss
from stbir.training.negatives import SampleKeys
from stbir.training.stages import TrainableModel

CPU = torch.device("cpu")
N = 7


def inputs() -> InputTensors:
    rng = torch.Generator().manual_seed(2)
    sketches, photos = (
        torch.randint(0, 256, (N, channels, 32, 32), generator=rng, dtype=torch.uint8) for channels in (1, 3)
    )
    text = torch.randint(1, 400, (N, 16), generator=rng)
    views: InputTensors = {
        view: (sketches if MODALITY_OF[view] == "sketch" else photos).flip(0) for view in VIEWS
    }
    return {"sketch": sketches, "photo": photos, "text": text} | views


@functools.cache
def gradients(stage: Stage, chunk_size: int | None, dropout: float = 0.0) -> tuple[Terms, InputTensors]:
    config = recipe("smoke").model
    options = config.photo.options | {"patch_dropout": dropout}
    config = replace(config, photo=replace(config.photo, options=options), gate=4)
    torch.manual_seed(0)
    model = TrainableModel(build_retriever(config), num_classes=2)
    model.set_stage(stage)
    assert model.retriever.gate is not None
    model.retriever.gate.eval()  # the loop seeds its dropout
    numbers = torch.arange(N)
    keys = SampleKeys(numbers, numbers, numbers % 2)
    backward = gradient_cache(model, chunk_size, stage.trainable_inputs) if chunk_size else full_batch(model)
    terms = backward(
        {name: inputs()[name] for name in (*stage.modalities, *stage.views)},
        lambda features: stage_loss(
            stage, LossConstants(), features, keys, model.class_weight_CD, model.anchor, model.temperature()
        ),
        CPU,
        2**64 - 1,  # the largest possible seed
    )
    return terms, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}  # type: ignore[misc]


def stages() -> list[Stage]:
    pairs = with_terms((SKETCH_TO_PHOTO, *INTRA_MODAL), symmetric=True, learn_temperature=True)
    views = replace(
        joint(1), name="views", objective=Objective(pairs), trainable=Trainable(("sketch", "photo"))
    )
    photo_views = replace(views, name="photo_views", trainable=Trainable(("photo",)))
    shared = with_shared_encoder(joint(1))
    return [*recipe("smoke").stages, shared, views, photo_views, fusion(1)]


@pytest.mark.parametrize("chunk_size", [1, 3, N, 50])
@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name)
def test_gradient_cache_has_the_gradients_of_the_full_batch(stage: Stage, chunk_size: int) -> None:
    terms, expected = gradients(stage, None)
    cached_terms, cached = gradients(stage, chunk_size)
    assert {name: t.item() for name, t in cached_terms.items()} == pytest.approx(
        {name: t.item() for name, t in terms.items()}, rel=1e-4
    )
    assert cached.keys() == expected.keys() != set()
    for name, gradient in expected.items():
        # Sums in another order: entries near 0 are rounded as coarsely as the largest ones.
        atol = 1e-5 * max(1.0, gradient.abs().max().item())
        assert torch.allclose(cached[name], gradient, atol=atol, rtol=1e-3), name


def test_second_pass_of_the_gradient_cache_draws_the_same_dropout_masks() -> None:
    expected = gradients(joint(1), None, dropout=0.5)[1]
    cached = gradients(joint(1), N, dropout=0.5)[1]
    no_dropout = gradients(joint(1), N)[1]
    name = next(name for name in expected if "photo" in name)
    assert torch.allclose(cached[name], expected[name], atol=1e-5)
    assert not torch.allclose(cached[name], no_dropout[name], atol=1e-5)


def test_chunk_size_is_rejected_with_trainable_batch_norms() -> None:
    assert replace(recipe("smoke"), chunk_size=8).chunk_size == 8
    with pytest.raises(ValueError, match="chunk_size: batch norms that learn"):
        replace(recipe("demo"), chunk_size=8)
