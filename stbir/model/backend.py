"""Inference backends: OpenVINO or ONNX Runtime instead of torch runs the forward pass of an encoder on a CPU.

Both read the graph of `onnx_export`. A checkpoint's digest stays that of its torch weights: vectors of all
backends are comparable, since a program is used only if it agrees with torch (MIN_COSINE).
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stbir.config import Modality
from stbir.config.choices import Backend
from stbir.errors import InputError
from stbir.model.encoders import Encoder, ImageEncoder
from stbir.model.graph_cache import GraphCache
from stbir.model.onnx_export import example_input, export_encoder
from stbir.model.text_encoder import WordVectors

log = logging.getLogger(__name__)
MIN_COSINE = 0.9999  # of the vectors of a program and of torch, float32
# Of convolutions and matrix products. "auto" leaves smaller encoders to torch: their export takes seconds.
MIN_PARAMETERS = 1_000_000
_EXPORTER = ("onnx", "onnxscript")
_EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}
_WHITE = 255

Program = Callable[[NDArray[Any]], NDArray[np.float32]]  # an input batch → vectors (B, D)


@dataclass(frozen=True)
class BackendInUse:
    """The backend that runs an encoder. `failure`: why it is torch although another one was chosen."""

    name: str
    failure: str | None = None

    def __str__(self) -> str:
        return f"{self.name} (fallback)" if self.failure else self.name


TORCH = BackendInUse("torch")


def use_backend(
    encoder: Encoder, modality: Modality, backend: Backend = "auto", cache: Path | None = None
) -> BackendInUse:
    """Run the forward pass of an encoder in eval mode by a backend; in place, as `nn.Module.compile`.

    auto: OpenVINO for an encoder on a CPU if it is installed and the encoder is large enough to gain from it,
        else torch. On GPUs torch runs in bfloat16 (`embedding.embed.encode`).
    cache: folder of exported graphs, for the next process. Threads: as many as torch uses in this process.

    A program that does not compile, or differs from torch, is not used: a warning says so, and torch runs.
    Weights that change afterwards are ignored. Raises InputError for a backend that is not installed, or not
    for the encoder's device.
    """
    name = _choose(encoder, backend)
    if name == "torch":
        return TORCH
    encoder.eval()
    try:
        program = _compile(encoder, modality, name, GraphCache(cache) if cache else None)
    except Exception as error:  # exporters and runtimes raise arbitrary errors
        failure = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        log.warning("backend: torch runs the %s encoder, not %s (%s)", modality, name, failure)
        return BackendInUse("torch", failure)
    _replace_forward(encoder, program)
    log.info("backend: %s runs the %s encoder", name, modality)
    return BackendInUse(name)


def _choose(encoder: Encoder, backend: Backend) -> str:
    is_on_cpu = next(encoder.parameters()).device.type == "cpu"
    if backend == "auto":
        gains = is_on_cpu and _is_installed("openvino") and _num_parameters(encoder) >= MIN_PARAMETERS
        return "openvino" if gains else "torch"
    if backend != "torch" and not is_on_cpu:
        raise InputError(f"backend: {backend} runs on CPUs only; leave it out for an encoder on a GPU")
    if backend != "torch" and not _is_installed(backend):
        raise InputError(f"backend: {backend} is not installed; pip install 'stbir[{_EXTRAS[backend]}]'")
    return backend


def _is_installed(backend: str) -> bool:
    return all(find_spec(package) for package in (backend, *_EXPORTER))


def _num_parameters(encoder: nn.Module) -> int:
    """Without embeddings, from which a text reads only a few rows."""
    modules = (each for each in encoder.modules() if not isinstance(each, nn.Embedding | WordVectors))
    return sum(each.numel() for module in modules for each in module.parameters(recurse=False))


def _compile(encoder: Encoder, modality: Modality, name: str, cache: GraphCache | None) -> Program:
    """The checked program. Raises ValueError if it differs, and what exporter and runtime raise."""
    graph = cache.read(encoder, modality) if cache else None
    if graph is None:
        graph = export_encoder(encoder, modality)
        program = _checked(_load(graph, name), encoder, modality)
        if cache:
            cache.write(encoder, modality, graph)
        return program
    try:
        return _checked(_load(graph, name), encoder, modality)
    except Exception:
        assert cache is not None
        cache.remove(encoder, modality)  # damaged, or of another exporter: the next start exports again
        raise


def _checked(program: Program, encoder: Encoder, modality: Modality) -> Program:
    """The program itself. Raises ValueError if its vectors differ from torch, alone or in a batch."""
    cosine = min(_min_cosine(program, encoder, inputs) for inputs in _check_inputs(encoder, modality))
    if not cosine >= MIN_COSINE:  # also if it is NaN
        raise ValueError(f"its vectors have cosine {cosine:.6f} with those of torch, less than {MIN_COSINE}")
    return program


def _check_inputs(encoder: Encoder, modality: Modality) -> list[Tensor]:
    """A batch, and a single input of another kind: a blank image, or a longer text."""
    if isinstance(encoder, ImageEncoder):
        pixels = example_input(encoder, modality, 3)
        return [pixels, torch.full_like(pixels[:1], _WHITE)]
    return [
        example_input(encoder, modality, 3),
        encoder.tokenize(["a blue wooden chair with arms on wheels"]),
    ]


def _min_cosine(program: Program, encoder: Encoder, inputs: Tensor) -> float:
    with torch.inference_mode():
        expected_BD = encoder(inputs).numpy()
    return float((expected_BD * program(inputs.numpy())).sum(1).min())


def _replace_forward(encoder: Encoder, program: Program) -> None:
    eager, lock = encoder.forward, threading.Lock()

    def forward(inputs: Tensor) -> Tensor:
        if encoder.training or inputs.device.type != "cpu":
            return eager(inputs)
        with lock:  # a program uses all threads, and its request holds one batch
            return torch.from_numpy(program(inputs.numpy()))

    encoder.forward = forward  # type: ignore[method-assign, assignment]


def _load(graph: bytes, name: str) -> Program:
    return _load_openvino(graph) if name == "openvino" else _load_onnxruntime(graph)


def _load_openvino(graph: bytes) -> Program:
    """A program of OpenVINO's CPU device, without its converter, which would report usage to its maker."""
    import openvino

    options = {
        "INFERENCE_PRECISION_HINT": "f32",  # its default is bfloat16 on CPUs that have it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # two processes would share the same cores
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(graph), "CPU", options).create_infer_request()
    return lambda inputs: request.infer([inputs])[0]


def _load_onnxruntime(graph: bytes) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Waiting threads would take the time of other processes on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    [name] = [each.name for each in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs})[0]
