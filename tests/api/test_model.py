"""Models from a checkpoint and from CLIP weights: encoding, evaluation, saving."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

import stbir
from stbir import InputError, Model
from stbir.api import model as api_model
from stbir.config.choices import Backend
from stbir.data.shards import open_shards
from stbir.evaluation.evaluate import evaluate
from stbir.model import checkpoint
from stbir.model.backend import TORCH
from stbir.model.clip import clip_recipe
from tests.data.image_files import drawing
from tests.ray_jobs.test_embed_gallery import ROWS, write_shards

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    name, folder = "stbir-api-clip", tmp_path_factory.mktemp("configs")
    (folder / f"{name}.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(folder)
    return name


@pytest.fixture(scope="module")
def clip_weights(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(open_clip.create_model(tiny_clip).state_dict(), path)
    return str(path)


def test_clip_without_training_has_the_features_of_open_clip(tiny_clip: str, clip_weights: str) -> None:
    model = stbir.from_clip(tiny_clip, clip_weights)
    reference, _, preprocess = open_clip.create_model_and_transforms(tiny_clip, pretrained=clip_weights)
    reference.eval()
    image = drawing(side=32)  # of the size and shape that CLIP takes: neither padded nor cropped
    with torch.no_grad():
        photo = reference.encode_image(preprocess(image)[None], normalize=True).numpy()
        tokens = open_clip.get_tokenizer(tiny_clip)(["a red chair"])
        text = reference.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(model.encode_photo(image), photo, atol=1e-5)
    np.testing.assert_allclose(model.encode_sketch(image), photo, atol=1e-5)
    np.testing.assert_allclose(model.encode_text("a red chair"), text, atol=1e-5)


def test_a_saved_clip_model_opens_the_gallery_of_the_unsaved_one(
    tiny_clip: str, clip_weights: str, photos: Path, tmp_path: Path
) -> None:
    model = stbir.from_clip(tiny_clip, clip_weights)
    gallery = stbir.index(photos, model, tmp_path / "gallery")
    uri = model.save(str(tmp_path / "checkpoint"))
    saved = stbir.load(uri)
    assert saved.digest == model.digest == checkpoint.read_digest(uri)
    hits = stbir.open_gallery(gallery.uri, saved).search(text="red", k=8)
    assert [*hits] == [*gallery.search(text="red", k=8)]
    again = stbir.from_clip(tiny_clip, clip_weights)
    again.save(uri)  # the same
    with pytest.raises(InputError, match=r"model: it is the checkpoint .* already"):
        saved.save(str(tmp_path / "copy"))
    with pytest.raises(InputError, match="contains another checkpoint"):
        stbir.from_clip(tiny_clip, None).save(uri)


def test_unknown_models_and_tags_are_refused(tiny_clip: str) -> None:
    with pytest.raises(InputError, match=r"open_clip has no 'ViT-Z-99'; see open_clip.list_models"):
        stbir.from_clip("ViT-Z-99", None)
    with pytest.raises(InputError, match="open_clip has no 'laion9z' for 'ViT-B-32'; it has openai, "):
        stbir.from_clip("ViT-B-32", "laion9z")
    with pytest.raises(InputError, match=r"no file nowhere/clip\.pt"):
        stbir.from_clip(tiny_clip, "nowhere/clip.pt")


def test_the_normalization_is_that_of_the_weights(tmp_path: Path) -> None:
    clip, half = clip_recipe("ViT-B-32", "openai").model.photo.preprocess, (0.5, 0.5, 0.5)
    assert (clip.size, clip.mean[0], clip.std[0]) == (224, 0.48145466, 0.26862954)
    (file := tmp_path / "siglip.safetensors").touch()
    for weights in ("webli", str(file)):
        siglip = clip_recipe("ViT-B-16-SigLIP-256", weights).model.photo.preprocess
        assert (siglip.size, siglip.mean, siglip.std) == (256, half, half)


def test_query_is_the_weighted_mean(model: Model) -> None:
    sketch, text = model.encode_sketch(drawing()), model.encode_text("red seat")
    for weight in (0.0, 0.3, 1.0):
        mean = weight * sketch + (1 - weight) * text
        query = model.encode_query(drawing(), "red seat", weight)
        np.testing.assert_allclose(query, mean / np.linalg.norm(mean), atol=1e-6)


def test_evaluation_is_that_of_the_library(model: Model, tmp_path: Path) -> None:
    shards = write_shards(str(tmp_path / "shards"), ROWS)
    results = model.evaluate(shards).results
    assert results == evaluate(model.retriever, open_shards(shards).iter_rows("test")).results
    with pytest.raises(InputError, match="split 'val' is empty; available: test"):
        model.evaluate(shards, "val")


def test_missing_checkpoint_and_device_are_refused(checkpoint_uri: str) -> None:
    with pytest.raises(InputError, match=r"no checkpoint here .*train\.py"):
        stbir.load("nowhere")
    with pytest.raises(InputError, match="device: 'abacus' cannot be used"):
        stbir.load(checkpoint_uri, device="abacus")


@pytest.mark.slow(reason="the exporter traces an encoder")
def test_a_backend_runs_the_encoders_that_are_used(
    checkpoint_uri: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_model, "DEFAULT_FOLDER", tmp_path)
    compiled = stbir.load(checkpoint_uri, backend="openvino")
    np.testing.assert_allclose(compiled.encode_text("red seat"), model.encode_text("red seat"), atol=1e-5)
    compiled.encode_text("blue")
    assert {modality: str(backend) for modality, backend in compiled.backends.items()} == {"text": "openvino"}
    assert str(model.backends["text"]) == "torch"  # too small to gain
    assert compiled.digest == model.digest


@pytest.mark.parametrize(("backend", "uses"), [("auto", [0, 1, 1]), ("openvino", [1, 1, 1])])
def test_auto_exports_an_encoder_once_it_has_many_inputs(
    backend: Backend, uses: list[int], checkpoint_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports: list[str] = []
    monkeypatch.setattr(api_model, "_MIN_INPUTS_TO_EXPORT", 3)
    monkeypatch.setattr(api_model, "use_backend", lambda *given: exports.append(given[1]) or TORCH)
    model = stbir.load(checkpoint_uri, backend=backend)
    for texts, count in zip([["a"], ["b", "c"], ["d", "e", "f"]], uses, strict=True):
        model.encode_text(texts)
        assert exports == ["text"] * count
