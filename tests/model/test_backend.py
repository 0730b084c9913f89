"""Inference backends: equal vectors in any batch, a reported fallback, graphs stored once."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.recipes import recipe
from stbir.config import MODALITIES, Modality, TextEncoderConfig
from stbir.config.choices import Backend
from stbir.embedding.embed import embed_texts, encode
from stbir.errors import InputError
from stbir.model import backend as backends
from stbir.model import graph_cache
from stbir.model.backend import BackendInUse, use_backend
from stbir.model.builder import build_retriever
from stbir.model.encoders import Encoder
from stbir.model.onnx_export import example_input
from stbir.model.retriever import Retriever
from tests.model.test_appearance import config as with_appearance
from tests.model.test_hubness import calibrated
from tests.model.test_sentence_backbone import model_config, sentence_model

__all__ = ["sentence_model"]  # a fixture
COMPILED: list[Backend] = ["openvino", "onnxruntime"]


def model(seed: int = 0) -> Retriever:
    return build_retriever(recipe("smoke").model, seed)


def no_export(*_: object) -> bytes:
    raise AssertionError("exported again")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs of `model()`."""
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.slow(reason="the exporter traces three encoders")
@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("backend", COMPILED)
def test_vectors_are_those_of_torch_in_batches_of_any_size(
    modality: Modality, backend: Backend, cache: Path
) -> None:
    encoder, eager = model().encoder(modality), model().encoder(modality)
    assert str(use_backend(encoder, modality, backend, cache)) == backend
    for batch in (1, 2, 7, 1):
        inputs = example_input(eager, modality, batch)
        vectors = encode(encoder, inputs)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, encode(eager, inputs), atol=1e-5)


@pytest.mark.slow(reason="the exporter traces an encoder")
def test_appearance_features_have_no_fixed_batch_size(cache: Path) -> None:
    encoder, eager = build_retriever(with_appearance()).photo, build_retriever(with_appearance()).photo
    assert str(use_backend(encoder, "photo", "openvino", cache)) == "openvino"
    for batch in (1, 5):
        inputs = example_input(eager, "photo", batch)
        np.testing.assert_allclose(encode(encoder, inputs), encode(eager, inputs), atol=1e-5)


@pytest.mark.slow(reason="the exporter traces an encoder")
@pytest.mark.parametrize("backend", COMPILED)
def test_the_hubness_correction_runs_in_it(backend: Backend, tmp_path: Path) -> None:
    encoder, eager = calibrated()[0].photo, calibrated()[0].photo
    assert str(use_backend(encoder, "photo", backend, tmp_path)) == backend
    inputs = example_input(eager, "photo", 3)
    np.testing.assert_allclose(encode(encoder, inputs), encode(eager, inputs), atol=1e-5)


@pytest.mark.slow(reason="the exporter traces an encoder")
@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("kind", ["sentence", "words"])
def test_texts_of_any_length_have_the_vectors_of_torch(
    kind: str, backend: Backend, sentence_model: Path, cache: Path
) -> None:
    config = model_config(sentence_model, word_vectors=True)
    if kind == "words":
        options = {"vocab_size": 49408, "context_length": 16}
        config = replace(config, text=TextEncoderConfig("words", library="words", options=options))
    encoder, eager = build_retriever(config).text, build_retriever(config).text
    assert str(use_backend(encoder, "text", backend, cache)) == backend
    for texts in (["red"], ["blue shoe red chair blue", "chair"], ["", "red", "blue"]):
        np.testing.assert_allclose(embed_texts(encoder, texts), embed_texts(eager, texts), atol=1e-5)


@pytest.mark.slow(reason="the exporter traces an encoder")
def test_training_uses_the_weights_and_not_the_program(cache: Path) -> None:
    encoder = model().photo
    use_backend(encoder, "photo", "openvino", cache)
    pixels = example_input(encoder, "photo", 2)
    assert not encoder(pixels).requires_grad
    assert encoder.train()(pixels).requires_grad


@pytest.mark.slow(reason="the exporter traces two encoders")
def test_a_graph_is_stored_once_for_equal_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_backend(model().photo, "photo", "onnxruntime", tmp_path)
    [path] = tmp_path.iterdir()
    monkeypatch.setattr(backends, "export_encoder", no_export)
    assert use_backend(model().photo, "photo", "openvino", tmp_path) == BackendInUse("openvino")
    in_use = use_backend(model(seed=1).photo, "photo", "openvino", tmp_path)
    assert in_use.failure is not None
    assert "exported again" in in_use.failure
    assert [*tmp_path.iterdir()] == [path]


def test_a_program_that_differs_from_torch_is_refused_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, eager = model().sketch, model().sketch
    pixels = example_input(encoder, "sketch", 3)
    monkeypatch.setattr(backends, "export_encoder", lambda *_: b"a graph")
    wrong = np.zeros((1, encoder.dim), np.float32)
    monkeypatch.setattr(backends, "_load", lambda *_: lambda inputs: wrong.repeat(len(inputs), 0))
    with caplog.at_level(logging.WARNING):
        in_use = use_backend(encoder, "sketch", "openvino")
    assert str(in_use) == "torch (fallback)"
    [record] = caplog.records
    assert "torch runs the sketch encoder, not openvino (ValueError: its vectors have cosine 0.000000" in (
        record.getMessage()
    )
    np.testing.assert_array_equal(encode(encoder, pixels), encode(eager, pixels))


def test_a_damaged_graph_is_removed(tmp_path: Path) -> None:
    encoder = model().photo
    graph_cache.GraphCache(tmp_path).write(encoder, "photo", b"no graph")
    assert use_backend(encoder, "photo", "onnxruntime", tmp_path).failure
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    stored = graph_cache.GraphCache(tmp_path / "file" / "graphs")
    stored.write(model().photo, "photo", b"graph")
    assert "is not stored" in caplog.text
    assert stored.read(model().photo, "photo") is None


def test_the_least_recently_used_graphs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "MAX_FILES", 2)
    stored = graph_cache.GraphCache(tmp_path)
    encoders = [torch.nn.Linear(1, 1, bias=False) for _ in range(3)]
    for number, encoder in enumerate(encoders):
        torch.nn.init.constant_(encoder.weight, number)
        stored.write(encoder, "photo", bytes([number]))
    assert [stored.read(encoder, "photo") for encoder in encoders] == [None, b"\1", b"\2"]


def test_auto_leaves_small_encoders_to_torch_and_takes_openvino_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: dict[str, list[Encoder]] = {"openvino": [], "torch": []}
    monkeypatch.setattr(backends, "_compile", lambda encoder, _, name, __: chosen[name].append(encoder))
    photo = model().photo
    assert str(use_backend(photo, "photo")) == "torch"
    monkeypatch.setattr(backends, "MIN_PARAMETERS", 1000)
    assert str(use_backend(photo, "photo")) == "openvino"
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    assert str(use_backend(model().photo, "photo")) == "torch"
    assert chosen == {"openvino": [photo], "torch": []}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"openvino is not installed; pip install 'stbir\[openvino\]'"):
        use_backend(model().photo, "photo", "openvino")
