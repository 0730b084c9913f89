"""An encoder of several scales trains at the first, and embeds as the mean over all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ray_jobs.recipes import recipe
from ray_jobs.recipes.chairs import SCALES, SIZE
from stbir.config import ImageEncoderConfig, ModelConfig
from stbir.embedding.embed import encode
from stbir.model.backend import use_backend
from stbir.model.builder import build_retriever
from stbir.model.encoders import ImageEncoder
from stbir.model.onnx_export import example_input
from tests.model.test_appearance import config as with_appearance

PIXELS = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(0))


def config(*scales: float) -> ModelConfig:
    parent = with_appearance()
    return replace(parent, photo=replace(parent.photo, scales=scales), sketch=None)


def encoder(*scales: float) -> ImageEncoder:
    return build_retriever(config(*scales)).photo


def test_the_embedding_is_the_mean_over_the_scales() -> None:
    pixels = PIXELS[..., : encoder(1.0).preprocess.size, : encoder(1.0).preprocess.size]
    single = [torch.from_numpy(encode(encoder(scale), pixels)) for scale in (0.75, 1.0)]
    expected = F.normalize(single[0] + single[1], dim=-1)
    np.testing.assert_allclose(encode(encoder(0.75, 1.0), pixels), expected, atol=1e-6)
    assert not torch.allclose(single[0], single[1], atol=1e-3)


def test_training_uses_the_first_scale() -> None:
    size = encoder(1.0).preprocess.size
    both, first = encoder(0.75, 1.0).train(), encoder(0.75).train()
    torch.testing.assert_close(both(PIXELS[..., :size, :size]), first(PIXELS[..., :size, :size]))


@pytest.mark.slow(reason="the exporter traces an encoder")
def test_a_backend_gives_the_same_vectors(tmp_path: Path) -> None:
    compiled, eager = encoder(0.75, 1.0), encoder(0.75, 1.0)
    assert str(use_backend(compiled, "photo", "openvino", tmp_path)) == "openvino"
    for batch in (1, 5):
        inputs = example_input(eager, "photo", batch)
        np.testing.assert_allclose(encode(compiled, inputs), encode(eager, inputs), atol=1e-5)


def test_a_transformer_of_fixed_size_is_refused() -> None:
    image = recipe("smoke").model.photo
    assert image.library == "open_clip"
    with pytest.raises(ValueError, match="scales need a convolutional timm backbone"):
        replace(image, scales=(0.5, 1.0))


def test_chairs_cpu_trains_at_its_first_scale() -> None:
    image: ImageEncoderConfig = recipe("chairs_cpu").model.photo
    assert round(image.scales[0] * image.preprocess.size) == SIZE
    assert image.scales == SCALES
