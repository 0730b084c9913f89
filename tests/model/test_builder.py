import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import safetensors.torch
import timm
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.small import HALF
from stbir.config import ImageEncoderConfig, ModelConfig, Preprocess, TextEncoderConfig
from stbir.errors import InputError
from stbir.model.batch_norm_folding import fold_batch_norms
from stbir.model.builder import build, encoder
from stbir.model.spatial_pooling import CELL, FINER_CELL, CellMeans, FinerCells

VISION = {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of open_clip's registry, as a user would add one."""
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
    photo = ImageEncoderConfig("open_clip", name, Preprocess(32, **HALF), weights=weights)
    return ModelConfig(dim=24, photo=photo, text=TextEncoderConfig(name, weights=weights))


def pixels(seed: int = 0, size: int = 32, channels: int = 3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, channels, size, size), generator=rng, dtype=torch.uint8)


def test_a_clip_from_a_file_gives_open_clips_own_features(tiny_clip: str, clip_weights: Path) -> None:
    ours = build(clip_config(tiny_clip, str(clip_weights)))
    theirs = open_clip.create_model(tiny_clip, pretrained=str(clip_weights)).eval()
    floats = (pixels().float() / 255 - 0.5) / 0.5
    tokens = ours.text.tokenize(["red chair", "blue shoe, white laces"])
    with torch.no_grad():
        assert torch.allclose(
            ours.encode_photo(pixels()), theirs.encode_image(floats, normalize=True), atol=1e-5
        )
        assert torch.allclose(ours.encode_text(tokens), theirs.encode_text(tokens, normalize=True), atol=1e-5)


def test_weights_come_from_any_uri(tiny_clip: str, clip_weights: Path) -> None:
    from stbir.storage.folder import Folder

    Folder("memory://weights").write("clip.pt", clip_weights.read_bytes())
    there = build(clip_config(tiny_clip, "memory://weights/clip.pt"))
    here = build(clip_config(tiny_clip, str(clip_weights)))
    assert torch.equal(there.encode_photo(pixels()), here.encode_photo(pixels()))


def test_weights_that_do_not_fit_are_refused_by_name_and_shape(tiny_clip: str, tmp_path: Path) -> None:
    state = open_clip.create_model(tiny_clip).state_dict()
    state["visual.conv1.weight"] = torch.zeros(32, 3, 4, 4)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"visual\.conv1\.weight.*4, 4") as refusal:
        build(clip_config(tiny_clip, str(tmp_path / "other.pt")))
    assert "\n" not in str(refusal.value)


def test_an_unknown_model_or_tag_is_refused(tiny_clip: str) -> None:
    with pytest.raises(InputError, match="no 'ViT-Z-99'"):
        build(clip_config("ViT-Z-99", None))
    with pytest.raises(InputError, match=r"no 'laion9z'.*openai"):
        build(clip_config("ViT-B-32", "laion9z"))


def test_a_missing_weights_file_is_refused(tiny_clip: str) -> None:
    with pytest.raises(InputError, match=r"no file nowhere/clip\.pt"):
        build(clip_config(tiny_clip, "nowhere/clip.pt"))


def timm_config(weights: str | None, **changes: object) -> ModelConfig:
    tower = ImageEncoderConfig("timm", "mobilenetv2_035", Preprocess(32, **HALF), weights=weights)
    text = recipe("smoke").model.text
    return ModelConfig(dim=8, photo=replace(tower, **changes), text=text)  # type: ignore[arg-type]


def test_a_timm_trunk_takes_its_weights_and_leaves_the_classifier(tmp_path: Path) -> None:
    torch.manual_seed(3)
    trunk = timm.create_model("mobilenetv2_035").eval()
    state = {name: tensor.contiguous() for name, tensor in trunk.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "trunk.safetensors")
    ours = build(timm_config(str(tmp_path / "trunk.safetensors")))
    floats = (pixels().float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = trunk.forward_head(trunk.forward_features(floats), pre_logits=True)
        assert torch.allclose(ours.photo.trunk(floats), expected, atol=1e-4)


def test_a_timm_trunk_refuses_weights_of_another(tmp_path: Path) -> None:
    state = {"conv_stem.weight": torch.zeros(9, 3, 3, 3)}
    safetensors.torch.save_file(state, tmp_path / "trunk.safetensors")
    with pytest.raises(InputError, match=r"conv_stem\.weight is \(9, 3, 3, 3\), needs \(16, 3, 3, 3\)"):
        build(timm_config(str(tmp_path / "trunk.safetensors")))


def test_cells_say_where_something_is() -> None:
    torch.manual_seed(0)
    cells, map_BCHW = CellMeans(3, grid=2), torch.randn(2, 3, 4, 4)
    rows = cells(map_BCHW)
    assert rows.shape == (2, cells.width) == (2, 3 + 4 * CELL)
    weight, bias = cells.reduce.weight[:, :, 0, 0], cells.reduce.bias
    for b in range(2):
        assert torch.allclose(rows[b, :3], map_BCHW[b].mean((1, 2)), atol=1e-6)
        for y in range(2):
            for x in range(2):
                mean = map_BCHW[b, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2))
                found = rows[b, 3:].reshape(CELL, 2, 2)[:, y, x]
                assert torch.allclose(found, weight @ mean + bias, atol=1e-5)


def test_finer_cells_are_normalised_means_of_an_earlier_map() -> None:
    torch.manual_seed(0)
    cells = FinerCells(level=1, channels=3, grid=2)
    maps = [torch.randn(2, 5, 8, 8), torch.randn(2, 3, 4, 4), torch.randn(2, 9, 1, 1)]
    weight, bias = cells.reduce.weight[:, :, 0, 0], cells.reduce.bias
    for b, found in enumerate(cells(maps)):
        row = torch.empty(FINER_CELL, 2, 2)
        for y in range(2):
            for x in range(2):
                row[:, y, x] = (
                    weight @ maps[1][b, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2)) + bias
                )
        spread = ((row - row.mean()) ** 2).mean().add(1e-5).sqrt()
        assert torch.allclose(found, ((row - row.mean()) / spread).flatten(), atol=1e-5)
    assert cells.width == 4 * FINER_CELL


def test_a_tower_adds_the_projections_of_earlier_maps() -> None:
    model = build(timm_config(None, grid=2, multiscale=((16, 2), (8, 4)))).eval()
    tower, floats = model.photo, (pixels().float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        last, maps = tower.trunk.forward_intermediates(floats)  # type: ignore[operator]
        sides = [32 // m.shape[-1] for m in maps]
        rows = tower.project(tower.trunk.forward_head(last, pre_logits=True))  # type: ignore[operator]
        for (stride, _), (cells, linear) in zip(((16, 2), (8, 4)), tower.multiscale, strict=True):  # type: ignore[misc]
            alone = [torch.zeros_like(m) for m in maps]
            alone[sides.index(stride)] = maps[sides.index(stride)]
            rows = rows + linear(cells(alone))
        assert torch.allclose(tower(pixels()), torch.nn.functional.normalize(rows, dim=-1), atol=1e-5)


def test_finer_needs_a_map_of_that_stride() -> None:
    with pytest.raises(InputError, match=r"finer: no map of stride 5; there are \[2, 4, 8, 16, 32\]"):
        build(timm_config(None, multiscale=((5, 2),)))


def test_a_tower_with_cells_is_rebuilt_from_its_configuration() -> None:
    config = timm_config(None, grid=2, multiscale=((8, 2),))
    first, again = build(config).photo, encoder(config, "photo", pretrained=False)
    again.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(pixels()), again.eval()(pixels()))
    assert first(pixels()).shape[1] == config.dim


def test_cells_need_a_feature_map() -> None:
    photo = ImageEncoderConfig("timm", "vit_tiny_patch16_224", Preprocess(224, **HALF), grid=2)
    with pytest.raises(InputError, match="'vit_tiny_patch16_224' gives no feature map"):
        encoder(replace(timm_config(None), photo=photo), "photo")


def test_batch_norms_keep_their_statistics_while_the_trunk_learns() -> None:
    tower = build(timm_config(None)).photo
    before = {name: buffer.clone() for name, buffer in tower.named_buffers()}
    tower.train()
    tower(pixels()).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in tower.named_buffers())


def test_batch_norms_learn_where_the_tower_says_so() -> None:
    tower = build(timm_config(None, batch_norm="learn")).photo
    before = tower.trunk.bn1.running_mean.clone()
    tower.train()
    tower(pixels())
    assert not torch.equal(tower.trunk.bn1.running_mean, before)


def with_statistics(trunk: torch.nn.Module) -> torch.nn.Module:
    """As after training: no norm is the identity."""
    for module in trunk.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for values in (module.running_var, module.weight):
                torch.nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.running_mean, module.bias):
                torch.nn.init.normal_(values, std=0.2)
    return trunk.eval()


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet18"])
def test_folded_batch_norms_are_the_same_function(name: str) -> None:
    trunk = with_statistics(timm.create_model(name, num_classes=0))
    sample = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = trunk(sample)
        fold_batch_norms(trunk, sample)
        assert torch.allclose(trunk(sample), before, atol=1e-4 * float(before.abs().max()))
    assert not any("running_mean" in buffer for buffer, _ in trunk.named_buffers())


def test_a_norm_before_its_convolution_is_not_folded() -> None:
    norm_first = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match=r"batch_norm: .*0 follows no convolution.*leave it at fixed"):
        fold_batch_norms(norm_first, torch.rand(1, 3, 8, 8))


def test_a_norm_used_elsewhere_than_it_stands_is_not_folded() -> None:
    class Crossed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.second = (
                torch.nn.Conv2d(3, 3, 3),
                torch.nn.BatchNorm2d(3),
                torch.nn.Conv2d(3, 3, 3),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.second(self.first(x)))

    with pytest.raises(InputError, match="used in another order"):
        fold_batch_norms(with_statistics(Crossed()), torch.rand(1, 3, 8, 8))


def test_a_folded_tower_is_rebuilt_from_its_configuration() -> None:
    config = timm_config(None, batch_norm="folded")
    first, again = build(config).photo, encoder(config, "photo", pretrained=False)
    again.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(pixels()), again.eval()(pixels()))


def test_frozen_prefixes_never_learn() -> None:
    tower = build(timm_config(None, frozen=("trunk.conv_stem", "trunk.blocks.0"))).photo
    tower.learn(True)
    frozen = {name for name, p in tower.named_parameters() if not p.requires_grad}
    assert frozen == {
        n for n, _ in tower.named_parameters() if n.startswith(("trunk.conv_stem", "trunk.blocks.0"))
    }
    assert frozen


def test_a_sketch_tower_left_out_starts_as_a_copy_of_the_photo_tower() -> None:
    model = build(recipe("smoke").model)
    assert torch.equal(model.encode_sketch(pixels()), model.encode_photo(pixels()))
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in zip(model.sketch.parameters(), model.photo.parameters(), strict=True)
    )


def test_grey_pictures_count_as_three_equal_channels() -> None:
    model = build(recipe("smoke").model)
    grey = pixels(channels=1)
    assert torch.allclose(
        model.encode_sketch(grey), model.encode_sketch(grey.expand(-1, 3, -1, -1)), atol=1e-6
    )


def test_features_are_unit_vectors_and_the_seed_decides_them() -> None:
    first, second, other = (build(recipe("smoke").model, seed) for seed in (1, 1, 2))
    features = first.encode_photo(pixels())
    assert features.shape == (2, 32)
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.equal(features, second.encode_photo(pixels()))
    assert not torch.equal(features, other.encode_photo(pixels()))
