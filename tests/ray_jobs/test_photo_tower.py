"""The tower's actor as a plain object: the batch that it finds, and what it does where that is too large."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ray_jobs.embedding import encoder_actor
from ray_jobs.embedding.decode import Decoded
from ray_jobs.embedding.encoder_actor import BatchSize, Encoded, PhotoTower
from ray_jobs.embedding.pipeline import Embedded
from ray_jobs.embedding.progress import Progress
from stbir.catalogue.photo import OUT_OF_REACH
from stbir.data.validation import Fault
from stbir.embedding.embed import encode
from stbir.model import checkpoint
from tests.ray_jobs.test_embed_gallery import smoke


def found(seconds_of: Callable[[int], float], rounds: int = 20) -> int:
    size = BatchSize()
    for _ in range(rounds):
        size.took(size.now, seconds_of(size.now))
    return size.now


@pytest.mark.parametrize(
    ("seconds_of", "best"),
    [
        (lambda batch: 0.001 * batch, 8),  # as fast in any size: the smallest
        (lambda batch: 0.01, 256),  # as long for any size: the largest
        (lambda batch: 0.01 + 0.001 * batch if batch <= 64 else 0.003 * batch, 64),
    ],
)
def test_a_batch_doubles_while_that_pays(seconds_of: Callable[[int], float], best: int) -> None:
    assert found(seconds_of) == best


def test_one_slow_batch_does_not_end_the_search() -> None:
    size, slow = BatchSize(), iter([9.0, 0.01] * 20)
    for _ in range(20):
        size.took(size.now, next(slow))
    assert size.now == 256


def test_a_part_of_a_batch_tells_nothing_and_a_fixed_one_stays() -> None:
    size = BatchSize()
    for _ in range(9):
        size.took(3, 1e-9)
    assert size.now == 8
    fixed = BatchSize(5)
    for _ in range(9):
        fixed.took(5, 1e-9)
    assert fixed.now == 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return smoke(str(tmp_path_factory.mktemp("model")))


PIXELS = np.random.default_rng(0).integers(0, 256, (70, 3, 32, 32), np.uint8)


@pytest.mark.parametrize("batch", [None, 7, 100])
def test_vectors_do_not_hang_on_the_batch(model: str, batch: int | None) -> None:
    tower = PhotoTower(model, 1, batch)
    want = encode(checkpoint.load(model, part="photo"), torch.tensor(PIXELS))
    for some in (PIXELS, PIXELS[:0], PIXELS[:3]):
        encoded = tower.encode(some)
        assert len(encoded.vectors) == len(some)
        if len(some):
            np.testing.assert_allclose(encoded.vectors, want[: len(some)], atol=1e-5)
            assert encoded.worked_s > 0


def test_where_memory_is_too_small_batches_are_halved(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def small(encoder: torch.nn.Module, pixels: torch.Tensor) -> np.ndarray:
        if len(pixels) > 12:
            raise torch.cuda.OutOfMemoryError
        seen.append(len(pixels))
        return encode(encoder, pixels)

    monkeypatch.setattr(encoder_actor, "encode", small)
    tower = PhotoTower(model, 1, 50)
    assert len(tower.encode(PIXELS).vectors) == 70
    assert max(seen) == 12
    monkeypatch.setattr(
        encoder_actor, "encode", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError)
    )
    with pytest.raises(torch.cuda.OutOfMemoryError):
        tower.encode(PIXELS)


def test_what_a_person_sees(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(lambda: 1000)
    bad = [Fault("x", "photo does not decode"), Fault("y", OUT_OF_REACH)]
    decoded = Decoded(photo_ids=["a"] * 95, there=[("b", b"")] * 3, faults=bad)
    for _ in range(2):
        progress.add(Embedded(decoded, Encoded(np.zeros((95, 4)), waited_s=1.0, worked_s=3.0, batch=64)))
    assert progress.end() == 1000
    line = capsys.readouterr().err
    assert line.startswith("200 of 1000 photos, ")
    assert "/s, 0:00:0" in line
    assert line.endswith(" left; 2 quarantined, 2 failed; the encoder waited 25%\n")
    summary = {"in": 200, "ok": 196, "embedded": 190, "already_there": 6, "quarantined": 2, "failed": 2}
    assert progress.counts.summary() == summary
