"""The global loss and its gradient do not depend on the number of workers (two gloo processes)."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from stbir.config import LossConstants, Modality, Objective, Pair, Stage, Trainable
from stbir.training.gather import gather_features, gather_keys
from stbir.training.gradients import InputTensors, Terms, full_batch, gradient_cache
from stbir.training.losses import stage_loss
from stbir.training.negatives import SampleKeys
from tests.conftest import free_port

PAIR = Pair(
    ("photo",), "sketch", nce=0.8, triplet=0.7, learn_temperature=True, candidates="class", symmetric=True
)
STAGE = Stage("sketch", Trainable(("sketch",)), Objective((PAIR,), category=0.2), 1)
ROWS = 6
TRAINABLE: tuple[Modality, ...] = ("sketch", "photo")
CHUNK_SIZE = 2
CASES = [(False, False), (True, False), (False, True), (True, True)]  # shared encoder, gradient cache


class LinearEncoders(nn.Module):
    def __init__(self, shared_encoder: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sketch = nn.Linear(5, 4)
        self.photo = self.sketch if shared_encoder else nn.Linear(5, 4)
        self.heads = nn.Parameter(torch.randn(2, 4))
        self.temperature_P = nn.Parameter(torch.tensor([0.1]))

    def forward(self, inputs: InputTensors) -> InputTensors:
        return {m: nn.functional.normalize(getattr(self, m)(rows), dim=-1) for m, rows in inputs.items()}


def gradients(rank: int, world: int, shared_encoder: bool, use_cache: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    # float64, because the size of rounding errors depends on the processor.
    sketch, photo = (torch.randn(ROWS, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    own = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    numbers = torch.arange(ROWS)
    keys = gather_keys(SampleKeys(numbers[own], numbers[own], (numbers % 2)[own]))
    encoders = LinearEncoders(shared_encoder).double()

    def loss_fn(features: InputTensors) -> Terms:
        gathered = {m: gather_features(rows) for m, rows in features.items()}
        return stage_loss(
            STAGE, LossConstants(), gathered, keys, encoders.heads, temperature_P=encoders.temperature_P
        )

    backward = gradient_cache(encoders, CHUNK_SIZE, TRAINABLE) if use_cache else full_batch(encoders)
    backward({"sketch": sketch[own], "photo": photo[own]}, loss_fn, torch.device("cpu"), 0)
    return {name: p.grad for name, p in encoders.named_parameters() if p.grad is not None}


def run_worker(rank: int, port: int, out: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save([gradients(rank, 2, *case) for case in CASES], f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow(reason="starts two processes that import torch")
def test_two_workers_have_the_gradients_of_one(tmp_path: Path) -> None:
    mp.spawn(run_worker, (free_port(), str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    expected = [gradients(0, 1, shared_encoder) for shared_encoder, _ in CASES]
    assert [len(each) for each in expected] == [6, 4, 6, 4]
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for result, single in zip(results, expected, strict=True):
            for name, gradient in single.items():
                assert torch.allclose(result[name], gradient, rtol=0, atol=1e-12), name
