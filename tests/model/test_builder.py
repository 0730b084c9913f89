import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import open_clip
import pytest
import safetensors.torch
import timm
import torch
from open_clip.tokenizer import SimpleTokenizer

from ray_jobs.recipes import recipe
from ray_jobs.recipes.small import HALF
from stbir.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from stbir.errors import InputError
from stbir.model.batch_norm_folding import fold_batch_norms
from stbir.model.builder import build_encoder, build_retriever
from stbir.model.retriever import Retriever
from stbir.model.spatial_pooling import (
    CELL_CHANNELS,
    MULTISCALE_CELL_CHANNELS,
    GridPooling,
    MultiscalePooling,
)

VISION = {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model in open_clip's registry, added as a user would add one."""
    name = "stbir-test-clip"
    folder = tmp_path_factory.mktemp("configs")
    text = json.dumps({"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT})
    (folder / f"{name}.json").write_text(text)
    open_clip.add_model_config(folder)
    return name


@pytest.fixture(scope="module")
def clip_weights(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    model = open_clip.create_model(tiny_clip)
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save({"state_dict": model.state_dict()}, path)
    return path


def clip_config(name: str, weights: str | None) -> ModelConfig:
    photo = ImageEncoderConfig("open_clip", name, HALF, weights=weights)
    return ModelConfig(dim=24, photo=photo, text=TextEncoderConfig(name, weights=weights))


def pixels(seed: int = 0, size: int = 32, channels: int = 3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, channels, size, size), generator=rng, dtype=torch.uint8)


def assert_equal_features(model: Retriever, reference: open_clip.CLIP) -> None:
    floats = (pixels().float() / 255 - 0.5) / 0.5
    tokens = model.text.tokenize(["red chair", "blue shoe, white laces"])
    with torch.no_grad():
        photo, text = model.encode_photo(pixels()), model.encode_text(tokens)
        assert torch.allclose(photo, reference.encode_image(floats, normalize=True), atol=1e-5)
        assert torch.allclose(text, reference.encode_text(tokens, normalize=True), atol=1e-5)


def test_token_ids_are_those_of_open_clip_and_computed_once_a_text(tiny_clip: str) -> None:
    with patch.object(SimpleTokenizer, "encode", autospec=True, side_effect=SimpleTokenizer.encode) as encode:
        tokenize = build_retriever(clip_config(tiny_clip, None)).text.tokenize
        tokens = [tokenize(texts) for texts in (["red chair"], ["blue shoe", "red chair"], ["red chair"])]
    assert encode.call_count == 2
    expected = open_clip.get_tokenizer(tiny_clip)(["blue shoe", "red chair"])
    assert torch.equal(tokens[1], expected)
    assert torch.equal(tokens[0], tokens[2])


def test_weights_from_a_file_give_the_features_of_open_clip(tiny_clip: str, clip_weights: Path) -> None:
    model = build_retriever(clip_config(tiny_clip, str(clip_weights)))
    reference = open_clip.create_model(tiny_clip, pretrained=str(clip_weights)).eval()
    assert_equal_features(model, reference)


def test_siglip_weights_give_the_features_of_open_clip(tmp_path: Path) -> None:
    """A SigLIP model: a timm image encoder, a bidirectional text encoder, and a logit bias."""
    vision = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}
    text = {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    name, sizes = "stbir-test-siglip", {"embed_dim": 24, "init_logit_bias": -10, "custom_text": True}
    (tmp_path / f"{name}.json").write_text(json.dumps({**sizes, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path)
    reference = open_clip.create_model(name).eval()
    assert "logit_bias" in reference.state_dict()
    torch.save(reference.state_dict(), tmp_path / "siglip.pt")
    model = build_retriever(clip_config(name, str(tmp_path / "siglip.pt")))
    assert_equal_features(model, reference)


def test_weights_load_from_any_uri(tiny_clip: str, clip_weights: Path) -> None:
    from stbir.storage.folder import Folder

    Folder("memory://weights").write("clip.pt", clip_weights.read_bytes())
    remote = build_retriever(clip_config(tiny_clip, "memory://weights/clip.pt"))
    local = build_retriever(clip_config(tiny_clip, str(clip_weights)))
    assert torch.equal(remote.encode_photo(pixels()), local.encode_photo(pixels()))


def test_clip_weights_of_a_compiled_training_run_load(
    tiny_clip: str, clip_weights: Path, tmp_path: Path
) -> None:
    state = torch.load(clip_weights)["state_dict"]
    # OpenAI's TorchScript files have integers of this kind.
    state = {f"module._orig_mod.{name}": t for name, t in state.items()} | {
        "context_length": torch.tensor(12)
    }
    torch.save({"epoch": 3, "model": state}, tmp_path / "run.pt")
    nested, plain = (
        build_retriever(clip_config(tiny_clip, str(path))) for path in (tmp_path / "run.pt", clip_weights)
    )
    assert torch.equal(nested.encode_photo(pixels()), plain.encode_photo(pixels()))
    tokens = plain.text.tokenize(["red chair"])
    assert torch.equal(nested.encode_text(tokens), plain.encode_text(tokens))


def test_mismatched_weights_are_rejected_by_name_and_shape(tiny_clip: str, tmp_path: Path) -> None:
    state = open_clip.create_model(tiny_clip).state_dict()
    state["visual.conv1.weight"] = torch.zeros(32, 3, 4, 4)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"visual\.conv1\.weight.*4, 4") as raised:
        build_retriever(clip_config(tiny_clip, str(tmp_path / "other.pt")))
    assert "\n" not in str(raised.value)


def test_unknown_model_or_tag_is_rejected(tiny_clip: str) -> None:
    with pytest.raises(InputError, match="no 'ViT-Z-99'"):
        build_retriever(clip_config("ViT-Z-99", None))
    with pytest.raises(InputError, match=r"no 'laion9z'.*openai"):
        build_retriever(clip_config("ViT-B-32", "laion9z"))


def test_missing_weights_file_is_rejected(tiny_clip: str) -> None:
    with pytest.raises(InputError, match=r"no file nowhere/clip\.pt"):
        build_retriever(clip_config(tiny_clip, "nowhere/clip.pt"))


def timm_config(weights: str | None, **changes: object) -> ModelConfig:
    photo = ImageEncoderConfig("timm", "mobilenetv2_035", HALF, weights=weights)
    text = recipe("smoke").model.text
    return ModelConfig(dim=8, photo=replace(photo, **changes), text=text)  # type: ignore[arg-type]


def test_timm_weights_load_and_the_classifier_is_ignored(tmp_path: Path) -> None:
    torch.manual_seed(3)
    backbone = timm.create_model("mobilenetv2_035").eval()
    state = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "backbone.safetensors")
    model = build_retriever(timm_config(str(tmp_path / "backbone.safetensors")))
    floats = (pixels().float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = backbone.forward_head(backbone.forward_features(floats), pre_logits=True)
        assert torch.allclose(model.photo.trunk(floats), expected, atol=1e-4)


def test_timm_weights_of_another_model_are_rejected(tmp_path: Path) -> None:
    state = {"conv_stem.weight": torch.zeros(9, 3, 3, 3)}
    safetensors.torch.save_file(state, tmp_path / "backbone.safetensors")
    with pytest.raises(InputError, match=r"conv_stem\.weight is \(9, 3, 3, 3\), needs \(16, 3, 3, 3\)"):
        build_retriever(timm_config(str(tmp_path / "backbone.safetensors")))


def test_grid_pooling_equals_an_explicit_loop() -> None:
    torch.manual_seed(0)
    pooling, map_BCHW = GridPooling(3, grid=2), torch.randn(2, 3, 4, 4)
    rows = pooling(map_BCHW)
    assert rows.shape == (2, pooling.width) == (2, 3 + 4 * CELL_CHANNELS)
    weight, bias = pooling.reduce.weight[:, :, 0, 0], pooling.reduce.bias
    for b in range(2):
        assert torch.allclose(rows[b, :3], map_BCHW[b].mean((1, 2)), atol=1e-6)
        for y in range(2):
            for x in range(2):
                mean = map_BCHW[b, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2))
                cell = rows[b, 3:].reshape(CELL_CHANNELS, 2, 2)[:, y, x]
                assert torch.allclose(cell, weight @ mean + bias, atol=1e-5)


def test_multiscale_pooling_equals_an_explicit_loop() -> None:
    torch.manual_seed(0)
    pooling = MultiscalePooling(level=1, channels=3, grid=2)
    maps = [torch.randn(2, 5, 8, 8), torch.randn(2, 3, 4, 4), torch.randn(2, 9, 1, 1)]
    weight, bias = pooling.reduce.weight[:, :, 0, 0], pooling.reduce.bias
    for b, pooled in enumerate(pooling(maps)):
        row = torch.empty(MULTISCALE_CELL_CHANNELS, 2, 2)
        for y in range(2):
            for x in range(2):
                row[:, y, x] = (
                    weight @ maps[1][b, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2)) + bias
                )
        spread = ((row - row.mean()) ** 2).mean().add(1e-5).sqrt()
        assert torch.allclose(pooled, ((row - row.mean()) / spread).flatten(), atol=1e-5)
    assert pooling.width == 4 * MULTISCALE_CELL_CHANNELS


def test_encoder_adds_the_projections_of_earlier_maps() -> None:
    model = build_retriever(timm_config(None, grid=2, multiscale=((16, 2), (8, 4)))).eval()
    encoder, floats = model.photo, (pixels().float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        last, maps = encoder.trunk.forward_intermediates(floats)  # type: ignore[operator]
        sides = [32 // m.shape[-1] for m in maps]
        rows = encoder.project(encoder.trunk.forward_head(last, pre_logits=True))  # type: ignore[operator]
        for (stride, _), (pooling, linear) in zip(((16, 2), (8, 4)), encoder.multiscale, strict=True):  # type: ignore[misc]
            single_map = [torch.zeros_like(m) for m in maps]
            single_map[sides.index(stride)] = maps[sides.index(stride)]
            rows = rows + linear(pooling(single_map))
        assert torch.allclose(encoder(pixels()), torch.nn.functional.normalize(rows, dim=-1), atol=1e-5)


def test_multiscale_stride_that_no_map_has_is_rejected() -> None:
    with pytest.raises(
        InputError, match=r"multiscale: no feature map of stride 5; choose from \[2, 4, 8, 16, 32\]"
    ):
        build_retriever(timm_config(None, multiscale=((5, 2),)))


@pytest.mark.parametrize("changes", [{"grid": 2, "multiscale": ((8, 2),)}, {"batch_norm": "folded"}])
def test_encoder_is_rebuilt_from_its_configuration(changes: dict[str, object]) -> None:
    config = timm_config(None, **changes)
    built, rebuilt = build_retriever(config).photo, build_encoder(config, "photo", pretrained=False)
    rebuilt.load_state_dict(built.state_dict())
    assert torch.equal(built.eval()(pixels()), rebuilt.eval()(pixels()))
    assert built(pixels()).shape[1] == config.dim


def test_grid_of_a_backbone_that_has_no_feature_map_is_rejected() -> None:
    photo = ImageEncoderConfig("timm", "vit_tiny_patch16_224", replace(HALF, size=224), grid=2)
    with pytest.raises(InputError, match="'vit_tiny_patch16_224' returns no feature map"):
        build_encoder(replace(timm_config(None), photo=photo), "photo")


CONVOLUTIONAL = ["mobilenetv3_small_050", "mobilenetv4_conv_small_035", "ghostnet_050", "lcnet_035"]


@pytest.mark.parametrize(
    ("name", "grid"), [("test_vit", 0), *((name, grid) for name in CONVOLUTIONAL for grid in (0, 2))]
)
def test_any_backbone_of_timm_has_the_width_of_its_output(name: str, grid: int) -> None:
    photo = ImageEncoderConfig("timm", name, replace(HALF, size=64), grid=grid)
    model = ModelConfig(dim=24, photo=photo, text=TextEncoderConfig("small", options=TEXT))
    with torch.no_grad():
        assert build_encoder(model, "photo").eval()(pixels(size=64)).shape == (2, 24)


def test_frozen_modules_are_whole_and_exist() -> None:
    photo = ImageEncoderConfig("timm", "test_resnet", replace(HALF, size=64), frozen=("trunk.layer1",))
    model = ModelConfig(dim=24, photo=photo, text=TextEncoderConfig("small", options=TEXT))
    encoder = build_encoder(model, "photo")
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all(name.startswith("trunk.layer1.") for name in frozen)
    with pytest.raises(InputError, match=r"frozen: no module or parameter 'trunk\.layer'"):
        build_encoder(replace(model, photo=replace(photo, frozen=("trunk.layer",))), "photo")


def test_fixed_batch_norms_keep_their_statistics_in_training() -> None:
    encoder = build_retriever(timm_config(None)).photo
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder.train()
    encoder(pixels()).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())


def test_trainable_batch_norms_update_their_statistics() -> None:
    encoder = build_retriever(timm_config(None, batch_norm="learn")).photo
    before = encoder.trunk.bn1.running_mean.clone()
    encoder.train()
    encoder(pixels())
    assert not torch.equal(encoder.trunk.bn1.running_mean, before)


def with_statistics(backbone: torch.nn.Module) -> torch.nn.Module:
    """The backbone with random batch norm statistics, as after training."""
    for module in backbone.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for values in (module.running_var, module.weight):
                torch.nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.running_mean, module.bias):
                torch.nn.init.normal_(values, std=0.2)
    return backbone.eval()


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet18"])
def test_folding_batch_norms_preserves_the_function(name: str) -> None:
    backbone = with_statistics(timm.create_model(name, num_classes=0))
    sample = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = backbone(sample)
        fold_batch_norms(backbone, sample)
        assert torch.allclose(backbone(sample), before, atol=1e-4 * float(before.abs().max()))
    assert not any("running_mean" in buffer for buffer, _ in backbone.named_buffers())


def test_folding_a_norm_before_its_convolution_is_rejected() -> None:
    norm_first = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match=r"batch_norm: .*0 follows no convolution.*set batch_norm=fixed"):
        fold_batch_norms(norm_first, torch.rand(1, 3, 8, 8))


def test_folding_a_norm_that_runs_in_another_order_is_rejected() -> None:
    class ReorderedModel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.norm, self.conv2 = (
                torch.nn.Conv2d(3, 3, 3),
                torch.nn.BatchNorm2d(3),
                torch.nn.Conv2d(3, 3, 3),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv2(self.conv1(x)))

    with pytest.raises(InputError, match="applied in another order"):
        fold_batch_norms(with_statistics(ReorderedModel()), torch.rand(1, 3, 8, 8))


def test_parameters_with_frozen_prefixes_are_not_trainable() -> None:
    prefixes = ("trunk.conv_stem", "trunk.blocks.0")
    encoder = build_retriever(timm_config(None, frozen=prefixes)).photo
    encoder.set_trainable(True)
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in encoder.named_parameters() if name.startswith(prefixes)}
    assert frozen


def test_unconfigured_sketch_encoder_has_its_own_copy_of_the_weights() -> None:
    model = build_retriever(recipe("smoke").model)
    assert torch.equal(model.encode_sketch(pixels()), model.encode_photo(pixels()))
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in zip(model.sketch.parameters(), model.photo.parameters(), strict=True)
    )


def test_grey_images_equal_three_equal_channels() -> None:
    model = build_retriever(recipe("smoke").model)
    grey = pixels(channels=1)
    assert torch.allclose(
        model.encode_sketch(grey), model.encode_sketch(grey.expand(-1, 3, -1, -1)), atol=1e-6
    )


def test_features_are_unit_vectors_that_depend_on_the_seed() -> None:
    model, same_seed, other_seed = (build_retriever(recipe("smoke").model, seed) for seed in (1, 1, 2))
    features = model.encode_photo(pixels())
    assert features.shape == (2, 32)
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.equal(features, same_seed.encode_photo(pixels()))
    assert not torch.equal(features, other_seed.encode_photo(pixels()))
