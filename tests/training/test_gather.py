"""Two real gloo processes against one: the global loss and its gradient must not know how many there are."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stbir.config import Margins, Pair, Stage, Weights
from stbir.training.gather import gather_features, gather_keys
from stbir.training.negatives import Keys
from stbir.training.objective import stage_loss

STAGE = Stage("sketch", ("sketch",), (Pair(("photo",), "sketch"),), 1, Weights(), negatives="class")
ROWS = 6


class Towers(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sketch = nn.Linear(5, 4)
        self.photo = self.sketch if tied else nn.Linear(5, 4)
        self.heads = nn.Parameter(torch.randn(2, 4))

    def forward(self, sketch: torch.Tensor, photo: torch.Tensor) -> dict[str, torch.Tensor]:
        unit = nn.functional.normalize
        return {"sketch": unit(self.sketch(sketch), dim=-1), "photo": unit(self.photo(photo), dim=-1)}


def gradients(rank: int, world: int, tied: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sketch, photo = (torch.randn(ROWS, 5, generator=generator) for _ in range(2))
    own = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    numbers = torch.arange(ROWS)
    keys = gather_keys(Keys(numbers[own], numbers[own], (numbers % 2)[own]))
    towers = Towers(tied)
    forward = DistributedDataParallel(towers) if world > 1 else towers
    features = {m: gather_features(rows) for m, rows in forward(sketch[own], photo[own]).items()}
    terms = stage_loss(STAGE, Margins(), features, keys, towers.heads)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in towers.named_parameters() if p.grad is not None}


def work(rank: int, port: int, out: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save([gradients(rank, 2, tied) for tied in (False, True)], f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow(reason="starts two processes that import torch")
def test_two_workers_have_the_gradient_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    expected = [gradients(0, 1, tied) for tied in (False, True)]
    assert [len(each) for each in expected] == [5, 3]
    for rank in range(2):
        for got, alone in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected, strict=True):
            for name, gradient in alone.items():
                assert torch.allclose(got[name], gradient, atol=1e-6), name
