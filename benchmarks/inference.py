"""Compares the inference backends of an image encoder with eager torch.

`python benchmarks/inference.py [--models NAME …] [--threads N]` encodes with random weights, on
CPUs. The sides alternate, so that other work on the machine meets all of them. The last line is JSON, for
each model and side: `speedup` at batch sizes 1 and 16, the median over pairs of CPU times (`speedup_wall`
of wall times); the smallest cosine with torch's vectors; `first_use_s`, CPU seconds to export and compile.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_jobs.cli import run
from stbir.config import ImageEncoderConfig, ModelConfig, Preprocess, TextEncoderConfig
from stbir.config.choices import Backend
from stbir.embedding.embed import encode
from stbir.model.backend import use_backend
from stbir.model.builder import build_encoder, resolve
from stbir.model.clip import clip_recipe
from stbir.model.encoders import ImageEncoder
from stbir.model.onnx_export import example_input

DIM = 512
TIMM = {"mobilenetv2_100": 128, "tf_efficientnet_lite2": 260, "resnet50": 224}  # name → pixels
CLIP = ("ViT-B-32",)
BATCHES = (1, 16)
BACKENDS: tuple[Backend, ...] = ("openvino", "onnxruntime")
Side = Callable[[Tensor], NDArray[np.float32]]


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each model."""
    torch.set_num_threads(args.threads)
    models = {name: _measure(name, args) for name in args.models}
    return {"threads": args.threads, "pairs": args.pairs, "models": models}


def _measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    sides, first_use_s = _sides(name)
    results: dict[str, Any] = {side: {"first_use_s": first_use_s[side]} for side in sides}
    for batch in BATCHES:
        pixels = example_input(_encoder(name), "photo", batch)
        times = _interleave(sides, pixels, args.pairs)
        expected_BD = sides["torch"](pixels)
        for side, encode_side in sides.items():
            cosine = float((expected_BD * encode_side(pixels)).sum(1).min())
            results[side][f"b{batch}"] = {**_ratios(times["torch"], times[side]), "cosine": round(cosine, 6)}
        print(f"{name} b{batch}: {results}", file=sys.stderr, flush=True)
    return results


def _encoder(name: str) -> ImageEncoder:
    """The photo encoder of a model, with random weights from a fixed seed."""
    torch.manual_seed(0)
    if name in CLIP:
        return build_encoder(resolve(clip_recipe(name, None).model), "photo", pretrained=False).eval()
    preprocess = Preprocess(TIMM[name], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    text = TextEncoderConfig("words", library="words", options={"vocab_size": 49408, "context_length": 16})
    model = ModelConfig(DIM, ImageEncoderConfig("timm", name, preprocess), text)
    return build_encoder(model, "photo", pretrained=False).eval()


def _sides(name: str) -> tuple[dict[str, Side], dict[str, float]]:
    """The sides, warmed up, and the CPU seconds of the first use of each."""
    factories: dict[str, Callable[[], Side]] = {"torch": lambda: _eager(_encoder(name))}
    for backend in BACKENDS:
        factories[backend] = lambda backend=backend: _backend(_encoder(name), backend)  # type: ignore[misc]
    sides, first_use_s = dict[str, Side](), dict[str, float]()
    for side, factory in factories.items():
        start = time.process_time()
        sides[side] = factory()
        for batch in BATCHES:
            sides[side](example_input(_encoder(name), "photo", batch))
        first_use_s[side] = round(time.process_time() - start, 1)
    return sides, first_use_s


def _eager(encoder: ImageEncoder) -> Side:
    return lambda pixels: encode(encoder, pixels)


def _backend(encoder: ImageEncoder, backend: Backend) -> Side:
    in_use = use_backend(encoder, "photo", backend)
    if in_use.failure:
        raise RuntimeError(f"{backend}: {in_use.failure}")
    return _eager(encoder)


def _interleave(sides: dict[str, Side], pixels: Tensor, pairs: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each side, one pass after the other."""
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(pairs):
        for side, encode_side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            encode_side(pixels)
            times[side].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def _ratios(torch_s: list[tuple[float, float]], side_s: list[tuple[float, float]]) -> dict[str, float]:
    pairs = list(zip(torch_s, side_s, strict=True))
    ms = statistics.median(side[1] for side in side_s) * 1000
    return {
        "cpu_ms": round(ms, 2),
        "speedup_wall": round(statistics.median(base[0] / side[0] for base, side in pairs), 2),
        "speedup": round(statistics.median(base[1] / side[1] for base, side in pairs), 2),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("inference", description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", choices=[*TIMM, *CLIP], default=[*TIMM, *CLIP], help="default: all")
    add("--threads", type=int, default=1, help="of each side (default: %(default)s, as in a replica)")
    add("--pairs", type=int, default=15, help="passes of each side (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run(main, parser())
