"""Export of the encoders to ONNX, each checked with ONNX Runtime. Needs the extra `stbir[onnx]`."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stbir.config import MODALITIES, Modality
from stbir.errors import InputError, JobFailedError
from stbir.model.encoders import Encoder, ImageEncoder, TextEncoder
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder

OPSET = 18
MAX_DIFFERENCE = 1e-3  # of a value of a unit vector, float32
_CHANNELS: dict[Modality, int] = {"sketch": 1, "photo": 3}
_INPUT, _OUTPUT = "input", "features"


def export_onnx(retriever: Retriever, out: str) -> dict[str, float]:
    """Write `sketch.onnx`, `photo.onnx` and `text.onnx` to a folder at any URI.

    Images are uint8 (B, 1 or 3, S, S) as `stbir.images` decodes them, normalized in the graph; texts are
    token ids (B, L), int64. Outputs are unit vectors (B, D). B is free, and L if the tokenizer pads to the
    longest text. Fusion is not part of the graphs.

    Returns the largest difference from this model of each encoder. Raises InputError if a package is missing,
    JobFailedError, and writes nothing, for a difference above MAX_DIFFERENCE.
    """
    _require_packages()
    folder, files, differences = Folder(out), dict[str, bytes](), dict[str, float]()
    for modality in MODALITIES:
        encoder = retriever.encoder(modality).cpu().eval()
        files[modality] = export_encoder(encoder, modality)
        differences[modality] = _difference(files[modality], encoder, example_input(encoder, modality, 3))
    if (worst := max(differences.values())) > MAX_DIFFERENCE:
        raise JobFailedError(
            f"ONNX differs from the model by {worst:.2g}; nothing is written", {**differences}
        )
    for name, data in files.items():
        folder.write(f"{name}.onnx", data)
    return differences


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"export: {error.name} is missing; pip install 'stbir[onnx]'") from error


def example_input(encoder: Encoder, modality: Modality, batch: int) -> Tensor:
    """Random pixels (B, 1 or 3, S, S), uint8, or the token ids (B, L) of texts."""
    if not isinstance(encoder, ImageEncoder):
        return encoder.tokenize([f"red seat {n}" for n in range(batch)])  # (B, L)
    size, generator = encoder.preprocess.size, torch.Generator().manual_seed(batch)
    shape = (batch, _CHANNELS[modality], size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def export_encoder(encoder: Encoder, modality: Modality) -> bytes:
    """An encoder on the CPU, in eval mode, as a checked ONNX model of OPSET.

    Raises what torch's exporter raises for a module that it cannot trace.
    """
    import onnx

    with _quiet_exporter():
        program = torch.onnx.export(
            encoder,
            (example_input(encoder, modality, 2),),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(_free_dims(encoder),),
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            verbose=False,
        )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "encoder.onnx"
        program.save(path)  # type: ignore[union-attr]
        onnx.checker.check_model(path)
        opsets = {each.version for each in onnx.load(path).opset_import if not each.domain}
        if opsets != {OPSET}:
            raise JobFailedError(
                f"the exporter wrote opset {opsets} instead of {OPSET}; nothing is written", {}
            )
        return path.read_bytes()


def _free_dims(encoder: Encoder) -> dict[int, Any]:
    """B, and also L if the tokenizer pads to the longest text."""
    free = {0: torch.export.Dim("batch")}
    if isinstance(encoder, ImageEncoder) or _length(encoder, "red") == _length(encoder, "a red leather seat"):
        return free
    return free | {1: torch.export.Dim("length")}


def _length(encoder: TextEncoder, text: str) -> int:
    return encoder.tokenize([text]).shape[1]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the information of the exporter, about a hundred lines a graph."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _difference(model: bytes, encoder: Encoder, inputs: Tensor) -> float:
    """The largest difference between the outputs of ONNX Runtime and of the encoder."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [output_BD] = session.run([_OUTPUT], {_INPUT: inputs.numpy()})
    with torch.inference_mode():
        return float((torch.from_numpy(output_BD) - encoder(inputs)).abs().max())
