from dataclasses import replace

import pytest
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import fusion, joint, with_shared_encoder
from stbir.config import LossConstants, Recipe, Stage
from stbir.model.builder import build
from stbir.training.gradients import Rows, Terms, at_once, in_chunks
from stbir.training.losses import stage_loss
from stbir.training.negatives import Keys
from stbir.training.stages import Learner

CPU = torch.device("cpu")
N = 7


def inputs() -> Rows:
    dice = torch.Generator().manual_seed(2)
    sketches, photos = (
        torch.randint(0, 256, (N, channels, 32, 32), generator=dice, dtype=torch.uint8) for channels in (1, 3)
    )
    return {"sketch": sketches, "photo": photos, "text": torch.randint(1, 400, (N, 16), generator=dice)}


def gradients(stage: Stage, chunk: int | None, dropout: float = 0.0) -> tuple[Terms, Rows]:
    options = recipe("smoke").model.photo.options | {"patch_dropout": dropout}
    model = recipe("smoke").model
    model = replace(model, photo=replace(model.photo, options=options), gate=4)
    torch.manual_seed(0)
    learner = Learner(build(model), classes=2)
    learner.learn(stage)
    assert learner.retriever.gate is not None
    learner.retriever.gate.eval()  # the loop sees to its dice
    numbers = torch.arange(N)
    keys = Keys(numbers, numbers, numbers % 2)
    backward = in_chunks(learner, chunk, stage.trainable) if chunk else at_once(learner)
    terms = backward(
        {m: inputs()[m] for m in stage.modalities},
        lambda features: stage_loss(
            stage, LossConstants(), features, keys, learner.classes_CD, learner.anchor
        ),
        CPU,
        2**64 - 1,  # the largest seed there is
    )
    return terms, {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}  # type: ignore[misc]


def stages() -> list[Stage]:
    return [*recipe("smoke").stages, with_shared_encoder(joint(1)), fusion(1, 1e-3)]


@pytest.mark.parametrize("chunk", [1, 3, N, 50])
@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name)
def test_chunks_have_the_gradients_of_the_whole_batch(stage: Stage, chunk: int) -> None:
    terms, expected = gradients(stage, None)
    chunked_terms, found = gradients(stage, chunk)
    assert {name: t.item() for name, t in chunked_terms.items()} == pytest.approx(
        {name: t.item() for name, t in terms.items()}, rel=1e-4
    )
    assert found.keys() == expected.keys() != set()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5, rtol=1e-3), name


def test_a_chunk_is_encoded_again_with_the_same_dice() -> None:
    expected = gradients(joint(1), None, dropout=0.5)[1]
    found = gradients(joint(1), N, dropout=0.5)[1]
    clean = gradients(joint(1), N)[1]
    name = next(name for name in expected if "photo" in name)
    assert torch.allclose(found[name], expected[name], atol=1e-5)
    assert not torch.allclose(found[name], clean[name], atol=1e-5)


def test_batch_norms_that_learn_take_no_chunks() -> None:
    def chunked(r: Recipe) -> Recipe:
        return replace(r, chunk_size=8)

    assert chunked(recipe("smoke")).chunk_size == 8
    with pytest.raises(ValueError, match="chunk_size: batch norms that learn"):
        chunked(recipe("demo"))
