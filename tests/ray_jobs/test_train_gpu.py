"""The GPU benchmark: one line without a GPU, and its figures on a CPU."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import train_gpu
from ray_jobs.recipes import recipe
from ray_jobs.training.class_labels import index_photos_with_labels
from stbir.data.shards import open_shards
from tests.conftest import ROOT

CPU = torch.device("cpu")


@pytest.mark.slow(reason="a process that imports the model libraries")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_one_line_says_so() -> None:
    script = [sys.executable, "benchmarks/train_gpu.py"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "benchmarks/train_gpu.py: --device: no GPU is visible to torch; --device cpu --recipe smoke tries the"
        " script"
    ]


def test_flops_of_a_sample_are_independent_of_batch_and_chunks(local_shards: str) -> None:
    r = recipe("smoke")
    photos, classes = index_photos_with_labels(r, open_shards(local_shards), ["train"])
    counts = [
        train_gpu.count_flops(train_gpu.override(r, settings), photos, len(classes), CPU)
        for settings in ([], ["batch_size=8"], ["chunk_size=4"])
    ]
    # The scores of a batch grow with its square.
    assert counts[0] == pytest.approx(counts[1], rel=0.01)
    assert counts[0] == counts[2] > 0


def test_mfu_counts_two_operations_a_multiplication() -> None:
    """What the benchmark divides by the peak, which data sheets give in the same unit."""
    with FlopCounterMode(display=False) as counter:
        nn.Linear(3, 5, bias=False)(torch.zeros(7, 3))
    assert counter.get_total_flops() == 2 * 3 * 5 * 7


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA L40S", 362e12), ("T4", None)],
)
def test_peak_of_a_gpu_is_found_by_its_name(
    name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert train_gpu.peak_flops(torch.device("cuda")) == peak


def test_figures_of_a_cpu(ray_cluster: str) -> None:
    arguments = [
        "--device",
        "cpu",
        "--recipe",
        "smoke",
        "--batch-sizes",
        "8",
        "--photos",
        "48",
        "--steps",
        "5",
    ]
    summary: dict[str, Any] = train_gpu.main(train_gpu.parser().parse_args(arguments))
    rows = summary["rows"]
    assert [row["stage"] for row in rows] == [stage.name for stage in recipe("smoke").stages]
    assert all(row["samples_per_s"] > 0 and row["pipeline_samples_per_s"] > 0 for row in rows)
    assert all(0 <= row["pipeline_waited"] <= 1 and row["gflop_per_sample"] > 0 for row in rows)
    assert {row["mfu"] for row in rows} == {row["peak_gib"] for row in rows} == {None}
