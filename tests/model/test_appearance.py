from dataclasses import replace

import pytest
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.small import HALF
from stbir.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.appearance import NUM_COLOURS, NUM_TEXTURE_MAPS, AppearanceHead, colour_histogram
from stbir.model.builder import build_encoder, build_retriever
from stbir.model.fusion import fuse
from stbir.model.retriever import Retriever

DIM, APPEARANCE_DIMS = 24, 10
EMBEDDING_BAG = TextEncoderConfig("bag", library="words", options={"vocab_size": 49408, "context_length": 12})


def config(**changes: object) -> ModelConfig:
    photo = ImageEncoderConfig("timm", "test_resnet", HALF, grid=2, multiscale=((8, 2),))
    model = ModelConfig(
        dim=DIM, photo=photo, sketch=photo, text=EMBEDDING_BAG, appearance_dims=APPEARANCE_DIMS
    )
    return replace(model, **changes)  # type: ignore[arg-type]


def pixels(batch: int = 3, channels: int = 3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, channels, 32, 32), generator=rng, dtype=torch.uint8)


def test_colour_histogram_equals_an_explicit_loop() -> None:
    images = pixels()
    images[0] = 255  # background only
    images[1, :, :16] = 250
    histogram = colour_histogram(images)
    for b, image in enumerate(images):
        counts, num_foreground = [0] * NUM_COLOURS, 0
        for y in range(32):
            for x in range(32):
                red, green, blue = (int(v) for v in image[:, y, x])
                if min(red, green, blue) < 0.93 * 255:
                    counts[red // 64 * 16 + green // 64 * 4 + blue // 64] += 1
                    num_foreground += 1
        expected = torch.tensor([(count / max(num_foreground, 1)) ** 0.5 for count in counts])
        assert torch.allclose(histogram[b], expected, atol=1e-6)


def test_appearance_head_inputs_are_normalised_means_deviations_and_colours() -> None:
    torch.manual_seed(0)
    channels, images = [4, 6, 3, 5], pixels()
    maps = [torch.randn(3, c, side, side) for c, side in zip(channels, (8, 4, 4, 2), strict=True)]
    head = AppearanceHead(channels, 5)
    rows = []
    for b in range(3):
        row = []
        means = [map_BCHW[b].mean((1, 2)) for map_BCHW in maps]
        for values in means + [
            map_BCHW[b].flatten(1).std(1, correction=0) for map_BCHW in maps[:NUM_TEXTURE_MAPS]
        ]:
            spread = ((values - values.mean()) ** 2).mean().add(1e-5).sqrt()
            row.append((values - values.mean()) / spread)
        rows.append(torch.cat([*row, colour_histogram(images[b : b + 1])[0] * 20]))
    expected = torch.stack(rows) @ head.linear.weight.T + head.linear.bias
    assert torch.allclose(head(maps, images), expected, atol=1e-4)


def test_sketches_and_texts_use_separate_dimensions_and_photos_use_both() -> None:
    model = build_retriever(config())
    sketch, photo = model.encode_sketch(pixels(channels=1)), model.encode_photo(pixels())
    text = model.encode_text(model.text.tokenize(["red chair", "blue shoe", "oak stool"]))
    for unit in (sketch, photo, text):
        assert unit.shape == (3, DIM)
        assert torch.allclose(unit.norm(dim=1), torch.ones(3), atol=1e-5)
    assert not sketch[:, -APPEARANCE_DIMS:].any()
    assert not text[:, :-APPEARANCE_DIMS].any()
    assert torch.allclose(photo[:, -APPEARANCE_DIMS:].norm(dim=1), torch.full((3,), 0.5**0.5), atol=1e-5)
    summed = (photo * sketch).sum(1) + (photo * text).sum(1)
    assert torch.allclose((photo * fuse(sketch, text)).sum(1) * 2**0.5, summed, atol=1e-5)


def test_shared_encoder_gives_a_sketch_the_structure_part_of_the_photo() -> None:
    model = build_retriever(config())
    model.set_shared_encoder(True)
    structure = model.encode_photo(pixels())[:, :-APPEARANCE_DIMS]
    expected = torch.nn.functional.normalize(structure, dim=1)
    assert torch.allclose(model.encode_sketch(pixels())[:, :-APPEARANCE_DIMS], expected, atol=1e-5)


def test_unconfigured_sketch_encoder_is_a_copy_of_the_photo_encoder() -> None:
    model = build_retriever(config(sketch=None))
    assert model.sketch.trunk is not model.photo.trunk
    photo = model.photo.state_dict()
    assert all(torch.equal(value, photo[name]) for name, value in model.sketch.state_dict().items())


def test_checkpoint_restores_the_appearance_head(tmp_path: object) -> None:
    model = build_retriever(config())
    r = replace(recipe("smoke"), model=config())
    checkpoint.save(str(tmp_path), "step-1", model, r, made_from="", counts={})
    loaded: Retriever = checkpoint.load(str(tmp_path))
    assert torch.equal(loaded.encode_photo(pixels()), model.eval().encode_photo(pixels()))
    assert torch.equal(checkpoint.load(str(tmp_path), "photo")(pixels()), model.encode_photo(pixels()))


def test_embedding_bag_ignores_word_order() -> None:
    text = build_encoder(config(), "text")
    a, b, c = text(text.tokenize(["dark red wood legs", "legs wood red dark", "dark red wood arms"]))
    assert torch.allclose(a, b, atol=1e-6)
    assert not torch.allclose(a, c, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"appearance_dims": DIM}, "appearance_dims: 24 leaves none of dim=24"),
        ({"photo": ImageEncoderConfig("open_clip", "ViT-B-32", HALF)}, "maps of a timm photo encoder"),
    ],
)
def test_invalid_appearance_dims_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "openai"}, "leave them out"),
        ({"options": {}}, "vocab_size and context_length"),
        (
            {"options": {**EMBEDDING_BAG.options, "hf_tokenizer_name": "roberta"}},
            "leave hf_tokenizer_name out",
        ),
    ],
)
def test_embedding_bag_rejects_weights_and_requires_sizes(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(EMBEDDING_BAG, **changes)  # type: ignore[arg-type]


def test_backbone_for_another_image_size_is_rejected() -> None:
    photo = ImageEncoderConfig("timm", "vit_tiny_patch16_224", HALF)
    with pytest.raises(InputError, match="cannot create timm model 'vit_tiny_patch16_224': Input height"):
        build_retriever(config(photo=photo, sketch=None))
