from dataclasses import replace

import pytest
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.small import HALF
from stbir.config import ImageEncoderConfig, ModelConfig, Preprocess, TextEncoderConfig
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.appearance import COLOURS, TEXTURES, Details, palette
from stbir.model.builder import build, encoder
from stbir.model.fusion import fuse
from stbir.model.retriever import Retriever

DIM, DETAILS = 24, 10
WORDS = TextEncoderConfig("bag", library="words", options={"vocab_size": 49408, "context_length": 12})


def config(**changes: object) -> ModelConfig:
    photo = ImageEncoderConfig("timm", "test_resnet", Preprocess(32, **HALF), grid=2, multiscale=((8, 2),))
    whole = ModelConfig(dim=DIM, photo=photo, sketch=photo, text=WORDS, appearance_dims=DETAILS)
    return replace(whole, **changes)  # type: ignore[arg-type]


def pixels(batch: int = 3, channels: int = 3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, channels, 32, 32), generator=rng, dtype=torch.uint8)


def test_the_palette_is_that_of_a_slow_count() -> None:
    pictures = pixels()
    pictures[0] = 255  # nothing but ground
    pictures[1, :, :16] = 250
    found = palette(pictures)
    for b, picture in enumerate(pictures):
        counts, inside = [0] * COLOURS, 0
        for y in range(32):
            for x in range(32):
                red, green, blue = (int(v) for v in picture[:, y, x])
                if min(red, green, blue) < 0.93 * 255:
                    counts[red // 64 * 16 + green // 64 * 4 + blue // 64] += 1
                    inside += 1
        expected = torch.tensor([(count / max(inside, 1)) ** 0.5 for count in counts])
        assert torch.allclose(found[b], expected, atol=1e-6)


def test_details_are_normalised_means_and_deviations_and_the_palette() -> None:
    torch.manual_seed(0)
    channels, pictures = [4, 6, 3, 5], pixels()
    maps = [torch.randn(3, c, side, side) for c, side in zip(channels, (8, 4, 4, 2), strict=True)]
    details = Details(channels, 5)
    rows = []
    for b in range(3):
        row = []
        means = [map_BCHW[b].mean((1, 2)) for map_BCHW in maps]
        for values in means + [map_BCHW[b].flatten(1).std(1, correction=0) for map_BCHW in maps[:TEXTURES]]:
            spread = ((values - values.mean()) ** 2).mean().add(1e-5).sqrt()
            row.append((values - values.mean()) / spread)
        rows.append(torch.cat([*row, palette(pictures[b : b + 1])[0] * 20]))
    expected = torch.stack(rows) @ details.linear.weight.T + details.linear.bias
    assert torch.allclose(details(maps, pictures), expected, atol=1e-4)


def test_sketches_and_texts_lie_apart_and_photos_in_both_parts() -> None:
    model = build(config())
    sketch, photo = model.encode_sketch(pixels(channels=1)), model.encode_photo(pixels())
    text = model.encode_text(model.text.tokenize(["red chair", "blue shoe", "oak stool"]))
    for unit in (sketch, photo, text):
        assert unit.shape == (3, DIM)
        assert torch.allclose(unit.norm(dim=1), torch.ones(3), atol=1e-5)
    assert not sketch[:, -DETAILS:].any()
    assert not text[:, :-DETAILS].any()
    assert torch.allclose(photo[:, -DETAILS:].norm(dim=1), torch.full((3,), 0.5**0.5), atol=1e-5)
    apart = (photo * sketch).sum(1) + (photo * text).sum(1)
    assert torch.allclose((photo * fuse(sketch, text)).sum(1) * 2**0.5, apart, atol=1e-5)


def test_a_tied_sketch_is_the_structure_of_the_same_picture_as_a_photo() -> None:
    model = build(config())
    model.tie(True)
    structure = model.encode_photo(pixels())[:, :-DETAILS]
    expected = torch.nn.functional.normalize(structure, dim=1)
    assert torch.allclose(model.encode_sketch(pixels())[:, :-DETAILS], expected, atol=1e-5)


def test_without_a_sketch_tower_it_starts_as_a_copy_of_the_photos() -> None:
    model = build(config(sketch=None))
    assert model.sketch.trunk is not model.photo.trunk
    theirs = model.photo.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.sketch.state_dict().items())


def test_details_travel_in_the_checkpoint(tmp_path: object) -> None:
    model = build(config())
    r = replace(recipe("smoke"), model=config())
    checkpoint.save(str(tmp_path), "step-1", model, r, made_from="", counts={})
    again: Retriever = checkpoint.load(str(tmp_path))
    assert torch.equal(again.encode_photo(pixels()), model.eval().encode_photo(pixels()))
    assert torch.equal(checkpoint.load(str(tmp_path), "photo")(pixels()), model.encode_photo(pixels()))


def test_the_order_of_the_words_does_not_matter() -> None:
    text = encoder(config(), "text")
    a, b, c = text(text.tokenize(["dark red wood legs", "legs wood red dark", "dark red wood arms"]))
    assert torch.allclose(a, b, atol=1e-6)
    assert not torch.allclose(a, c, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"appearance_dims": DIM}, "appearance_dims: 24 leaves none of dim=24"),
        (
            {"photo": ImageEncoderConfig("open_clip", "ViT-B-32", Preprocess(32, **HALF))},
            "maps of a timm photo encoder",
        ),
    ],
)
def test_what_leaves_no_place_for_details_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": "openai"}, "leave them out"),
        ({"options": {}}, "vocab_size and context_length"),
        ({"options": {**WORDS.options, "hf_tokenizer_name": "roberta"}}, "leave hf_tokenizer_name out"),
    ],
)
def test_words_take_no_weights_and_need_their_sizes(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(WORDS, **changes)  # type: ignore[arg-type]


def test_a_trunk_that_cannot_take_such_pictures_is_refused() -> None:
    photo = ImageEncoderConfig("timm", "vit_tiny_patch16_224", Preprocess(32, **HALF))
    with pytest.raises(InputError, match="the maps of 'vit_tiny_patch16_224' cannot be made: Input height"):
        build(config(photo=photo, sketch=None))
