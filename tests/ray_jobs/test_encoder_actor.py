"""The encoder actor as a plain object: its batch size, and its behaviour when device memory runs out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.embedding import encoder_actor
from ray_jobs.embedding.encoder_actor import BatchSizeTuner, EncodedPart, EncoderActor
from ray_jobs.embedding.pipeline import EmbeddedPart
from ray_jobs.embedding.progress import Progress
from stbir.catalogue.photo import NOT_AN_IMAGE, PHOTO_UNREACHABLE
from stbir.data.validation import Fault
from stbir.embedding.decode import DecodedPart
from stbir.embedding.embed import encode
from stbir.model import checkpoint
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint


def tuned_size(tuner: BatchSizeTuner, batch_seconds: Callable[[int], float]) -> int:
    for _ in range(20):
        tuner.record(tuner.size, batch_seconds(tuner.size))
    return tuner.size


@pytest.mark.parametrize(
    ("batch_seconds", "best"),
    [
        (lambda size: 0.001 * size, 8),  # the same throughput at any size: the smallest
        (lambda size: 0.01, 256),  # the same time at any size: the largest
        (lambda size: 0.01 + 0.001 * size if size <= 64 else 0.003 * size, 64),
    ],
)
def test_batch_size_doubles_while_throughput_grows(batch_seconds: Callable[[int], float], best: int) -> None:
    assert tuned_size(BatchSizeTuner(), batch_seconds) == best


def test_one_slow_batch_does_not_end_the_tuning() -> None:
    times = iter([9.0, 0.01] * 10)
    assert tuned_size(BatchSizeTuner(), lambda _: next(times)) == 256


def test_partial_batches_are_ignored_and_a_fixed_size_stays() -> None:
    tuner, fixed = BatchSizeTuner(), BatchSizeTuner(5)
    for _ in range(9):
        tuner.record(3, 1e-9)
        fixed.record(5, 1e-9)
    assert tuner.size == 8
    assert fixed.size == 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_smoke_checkpoint(str(tmp_path_factory.mktemp("model")))


PIXELS = np.random.default_rng(0).integers(0, 256, (70, 3, 32, 32), np.uint8)


@pytest.mark.parametrize("batch_size", [None, 7, 100])
def test_vectors_do_not_depend_on_the_batch_size(model: str, batch_size: int | None) -> None:
    actor = EncoderActor(model, 1, batch_size)
    expected = encode(checkpoint.load(model, part="photo"), torch.tensor(PIXELS))
    for pixels in (PIXELS, PIXELS[:0], PIXELS[:3]):
        encoded = actor.encode(pixels)
        assert len(encoded.vectors) == len(pixels)
        if len(pixels):
            np.testing.assert_allclose(encoded.vectors, expected[: len(pixels)], atol=1e-5)
            assert encoded.encode_s > 0


def test_batch_size_halves_when_memory_runs_out(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    max_size, sizes = 12, []

    def encode_small_batches(encoder: torch.nn.Module, pixels: torch.Tensor) -> np.ndarray:
        if len(pixels) > max_size:
            raise torch.cuda.OutOfMemoryError
        sizes.append(len(pixels))
        return encode(encoder, pixels)

    monkeypatch.setattr(encoder_actor, "encode", encode_small_batches)
    actor = EncoderActor(model, 1, 50)
    assert len(actor.encode(PIXELS).vectors) == 70
    assert max(sizes) == 12
    max_size = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        actor.encode(PIXELS)


def test_progress_line_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(1000)
    faults = [Fault("x", "photo does not decode"), Fault("y", PHOTO_UNREACHABLE), Fault("z", NOT_AN_IMAGE)]
    decoded = DecodedPart(photo_ids=["a"] * 94, existing=[("b", b"")] * 3, faults=faults)
    encoded = EncodedPart(np.zeros((94, 4)), wait_s=1.0, encode_s=3.0, batch_size=64)
    for _ in range(2):
        progress.add(EmbeddedPart(decoded, encoded))
    progress.close()
    line = capsys.readouterr().err
    assert line.startswith("200 of 1000 photos, ")
    assert "/s, 00:00 left; " in line
    assert line.endswith(" left; 2 quarantined, 2 failed; the encoder waited 25%\n")
    summary = {"in": 198, "ok": 194, "embedded": 188, "already_there": 6, "quarantined": 2, "failed": 2}
    assert progress.counts.summary() == {**summary, "not_taken": 2}


@pytest.mark.slow(reason="the exporter traces an encoder")
def test_a_backend_gives_the_vectors_of_torch(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_actor, "DEFAULT_FOLDER", tmp_path)
    eager = EncoderActor(model, 1, 16).encode(PIXELS)
    compiled = EncoderActor(model, 1, 16, "openvino").encode(PIXELS)
    assert (eager.backend, compiled.backend) == ("torch", "openvino")
    np.testing.assert_allclose(compiled.vectors, eager.vectors, atol=1e-5)
