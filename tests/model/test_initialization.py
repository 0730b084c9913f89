"""Encoders that start from a checkpoint: equal features, and refused shapes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from ray_jobs.recipes import is_finetuning, recipe, recipe_names
from ray_jobs.recipes.finetune import with_model
from ray_jobs.recipes.override import override
from stbir.config import ModelConfig
from stbir.embedding.embed import encode
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build_retriever, resolve
from stbir.model.initialization import build_from_checkpoint
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

PIXELS = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def smoke_model() -> ModelConfig:
    return recipe("smoke").model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_smoke_checkpoint(str(tmp_path_factory.mktemp("trained")), seed=7)


def test_encoders_start_with_the_weights_of_the_checkpoint(trained: str) -> None:
    model = build_from_checkpoint(smoke_model(), trained, seed=1)
    expected, other = checkpoint.load(trained), build_retriever(smoke_model(), 1)
    for modality in ("photo", "sketch"):
        encoder, same, different = (getattr(each, modality) for each in (model, expected, other))
        np.testing.assert_array_equal(encode(encoder, PIXELS), encode(same, PIXELS))
        assert not np.allclose(encode(encoder, PIXELS), encode(different, PIXELS), atol=1e-3)
    tokens = model.text.tokenize(["red seat"])
    np.testing.assert_array_equal(encode(model.text, tokens), encode(expected.text, tokens))


def test_a_gate_and_a_hubness_correction_start_anew(tmp_path: Path) -> None:
    config = replace(smoke_model(), gate=4, hubness=8)
    uri, corrected = str(tmp_path), replace(recipe("smoke"), model=config)
    checkpoint.save(uri, "000", build_retriever(config, 7), corrected, made_from="", counts={})
    plain = build_from_checkpoint(with_model(recipe("finetune"), config).model, uri)
    assert plain.gate is None
    assert plain.dim == config.dim
    np.testing.assert_allclose(
        encode(plain.photo, PIXELS), encode(checkpoint.load(uri, "photo"), PIXELS)[:, : config.dim], atol=1e-6
    )
    again = build_from_checkpoint(config, uri)
    assert again.dim == config.width


def test_other_sizes_are_refused_with_their_shapes(trained: str) -> None:
    larger = override(recipe("smoke"), ["model.photo.options.width=96"]).model
    with pytest.raises(InputError) as error:
        build_from_checkpoint(larger, trained)
    message = str(error.value)
    assert message.startswith(f"--init-from: weights: {trained} (sketch encoder) does not match the model: ")
    assert "trunk.class_embedding is (64,), needs (96,)" in message
    assert message.endswith(
        "choose recipe finetune, which takes the checkpoint's model, or change --set model.…"
    )


def test_the_activation_of_the_weights_stays_without_them(trained: str) -> None:
    """OpenAI's weights need QuickGELU; the tag says so, also if its weights are not loaded."""
    config = resolve(recipe("finetune").model)
    assert config.photo.options["quick_gelu"] is True


def test_finetuning_recipes_take_the_model_of_the_checkpoint(trained: str) -> None:
    model = checkpoint.read_recipe(trained).model
    for name in (name for name in recipe_names() if name.startswith("finetune")):
        assert is_finetuning(name)
        assert build_from_checkpoint(with_model(recipe(name), model).model, trained).dim == 32
    assert not is_finetuning("smoke")


def test_finetuning_of_text_trains_only_the_text_encoder_and_needs_no_sketches() -> None:
    [stage] = recipe("finetune_text").stages
    assert (stage.trainable.encoders, "sketch" in stage.modalities) == (("text",), False)
    assert recipe("finetune_text").constant(stage) == ("photo",)  # encoded once


def test_clip_checkpoint_of_the_command_equals_open_clip(tmp_path: Path) -> None:
    from ray_jobs.init_checkpoint import main, parser

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "stbir-init-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")
    reference = open_clip.create_model("stbir-init-clip").eval()
    torch.save(reference.state_dict(), tmp_path / "clip.pt")
    options = ["--model", "stbir-init-clip", "--pretrained", str(tmp_path / "clip.pt")]
    out = str(tmp_path / "checkpoint")
    summary = main(parser().parse_args([*options, "--out", out]))
    assert (summary["dim"], summary["image_size"]) == (24, 32)
    assert summary["digest"] == checkpoint.read_digest(out)
    model = checkpoint.load(out)
    with torch.no_grad():
        image_BD = reference.encode_image(model.photo._normalize(PIXELS), normalize=True).numpy()
    for encoder in (model.photo, model.sketch):
        np.testing.assert_allclose(encode(encoder, PIXELS), image_BD, atol=1e-5)
    assert main(parser().parse_args([*options, "--out", out])) == summary  # the same again
    with pytest.raises(InputError, match="contains another checkpoint"):
        main(parser().parse_args([*options, "--out", save_smoke_checkpoint(str(tmp_path / "smoke"))]))
