"""Export of the encoders to ONNX, each checked with ONNX Runtime. Needs the extra `stbir[onnx]`."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from stbir.config import MODALITIES, Modality
from stbir.errors import InputError, JobFailedError
from stbir.model.encoders import Encoder, ImageEncoder
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder

OPSET = 18
MAX_DIFFERENCE = 1e-3  # of a value of a unit vector, float32
_CHANNELS: dict[Modality, int] = {"sketch": 1, "photo": 3}
_INPUT, _OUTPUT = "input", "features"


def export_onnx(retriever: Retriever, out: str) -> dict[str, float]:
    """Write `sketch.onnx`, `photo.onnx` and `text.onnx` to a folder at any URI.

    Images are uint8 (B, 1 or 3, S, S) as `stbir.images` decodes them, normalized in the graph; texts are
    token ids (B, L), int64. Outputs are unit vectors (B, D). B is free. Fusion is not part of the graphs.

    Returns the largest difference from this model of each encoder. Raises InputError if a package is missing,
    JobFailedError, and writes nothing, for a difference above MAX_DIFFERENCE.
    """
    _require_packages()
    folder, files, differences = Folder(out), dict[str, bytes](), dict[str, float]()
    for modality in MODALITIES:
        encoder = retriever.encoder(modality).cpu().eval()
        files[modality] = _export(encoder, _example(encoder, modality, 2))
        differences[modality] = _difference(files[modality], encoder, _example(encoder, modality, 3))
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


def _example(encoder: Encoder, modality: Modality, batch: int) -> Tensor:
    if not isinstance(encoder, ImageEncoder):
        return encoder.tokenize([f"red seat {n}" for n in range(batch)])  # (B, L)
    size, generator = encoder.preprocess.size, torch.Generator().manual_seed(batch)
    shape = (batch, _CHANNELS[modality], size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _export(encoder: Encoder, inputs: Tensor) -> bytes:
    """The encoder as a checked ONNX model of OPSET, with a free batch dimension."""
    import onnx

    program = torch.onnx.export(
        encoder,
        (inputs,),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
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


def _difference(model: bytes, encoder: Encoder, inputs: Tensor) -> float:
    """The largest difference between the outputs of ONNX Runtime and of the encoder."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [output_BD] = session.run([_OUTPUT], {_INPUT: inputs.numpy()})
    with torch.inference_mode():
        return float((torch.from_numpy(output_BD) - encoder(inputs)).abs().max())
