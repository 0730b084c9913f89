"""ONNX files of the encoders: equal vectors in ONNX Runtime, for any batch, at any URI."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ray_jobs.export_onnx import main, parser
from ray_jobs.recipes import recipe
from stbir.embedding.embed import encode
from stbir.errors import InputError, JobFailedError
from stbir.model import checkpoint, onnx_export
from stbir.model.builder import build_retriever
from stbir.model.onnx_export import OPSET, export_onnx
from stbir.storage.folder import Folder
from tests.model.test_hubness import calibrated
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint


@pytest.mark.slow(reason="the exporter traces three encoders")
def test_exported_encoders_give_the_vectors_of_the_model(tmp_path: Path) -> None:
    uri = save_smoke_checkpoint(str(tmp_path / "checkpoint"))
    out = "memory://onnx-export"
    summary = main(parser().parse_args(["--checkpoint", uri, "--out", out]))
    assert summary["opset"] == OPSET
    assert summary["checkpoint"] == checkpoint.read_digest(uri)
    assert max(summary["max_difference"].values()) < 1e-5
    model = checkpoint.load(uri)
    inputs = {
        "photo": torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8),
        "sketch": torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8),
        "text": model.text.tokenize(["a red chair", "blue", "no", "yes"]),
    }
    for modality, batch in inputs.items():
        session = onnxruntime.InferenceSession(Folder(out).read(f"{modality}.onnx"))
        [vectors] = session.run(None, {"input": batch.numpy()})
        np.testing.assert_allclose(vectors, encode(getattr(model, modality), batch), atol=1e-5)


@pytest.mark.slow(reason="the exporter traces three encoders")
def test_hubness_correction_is_exported_for_any_batch(tmp_path: Path) -> None:
    model, _ = calibrated()
    assert max(export_onnx(model, str(tmp_path)).values()) < 1e-5


@pytest.mark.slow(reason="the exporter traces three encoders")
def test_a_differing_export_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(JobFailedError, match=r"ONNX differs from the model by .*; nothing is written"):
        export_onnx(build_retriever(recipe("smoke").model), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"export: onnxruntime is missing; pip install 'stbir\[onnx\]'"):
        export_onnx(build_retriever(recipe("smoke").model), str(tmp_path))
