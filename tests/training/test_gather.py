"""Two real gloo processes against one: the global loss and its gradient must not know how many there are."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from stbir.config import LossConstants, LossWeights, Modality, Pair, Stage
from stbir.training.gather import gather_features, gather_keys
from stbir.training.gradients import Rows, Terms, at_once, in_chunks
from stbir.training.losses import stage_loss
from stbir.training.negatives import Keys

STAGE = Stage("sketch", ("sketch",), (Pair(("photo",), "sketch"),), 1, LossWeights(), negatives="class")
ROWS = 6


LEARNS: tuple[Modality, ...] = ("sketch", "photo")
CHUNK = 2
KINDS = [(False, False), (True, False), (False, True), (True, True)]  # tied, in chunks


class Towers(nn.Module):
    def __init__(self, shared_encoder: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sketch = nn.Linear(5, 4)
        self.photo = self.sketch if shared_encoder else nn.Linear(5, 4)
        self.heads = nn.Parameter(torch.randn(2, 4))

    def forward(self, inputs: Rows) -> Rows:
        return {m: nn.functional.normalize(getattr(self, m)(rows), dim=-1) for m, rows in inputs.items()}


def gradients(rank: int, world: int, shared_encoder: bool, chunked: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    # In float64: what is left is no rounding, whose size depends on the processor.
    sketch, photo = (torch.randn(ROWS, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    own = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    numbers = torch.arange(ROWS)
    keys = gather_keys(Keys(numbers[own], numbers[own], (numbers % 2)[own]))
    towers = Towers(shared_encoder).double()

    def objective(features: Rows) -> Terms:
        everyones = {m: gather_features(rows) for m, rows in features.items()}
        return stage_loss(STAGE, LossConstants(), everyones, keys, towers.heads)

    backward = in_chunks(towers, CHUNK, LEARNS) if chunked else at_once(towers)
    backward({"sketch": sketch[own], "photo": photo[own]}, objective, torch.device("cpu"), 0)
    return {name: p.grad for name, p in towers.named_parameters() if p.grad is not None}


def work(rank: int, port: int, out: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save([gradients(rank, 2, *kind) for kind in KINDS], f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow(reason="starts two processes that import torch")
def test_two_workers_have_the_gradient_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    expected = [gradients(0, 1, shared_encoder) for shared_encoder, _ in KINDS]
    assert [len(each) for each in expected] == [5, 3, 5, 3]
    for rank in range(2):
        for got, alone in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected, strict=True):
            for name, gradient in alone.items():
                assert torch.allclose(got[name], gradient, rtol=0, atol=1e-12), name
