"""The export_onnx command: the encoders of a CHECKPOINT as ONNX files, in this process."""

import argparse
from typing import Any

from stbir.model import checkpoint
from stbir.model.onnx_export import OPSET, export_onnx


def export_checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    """Export and compare. Raises InputError and JobFailedError as `export_onnx` does."""
    pinned, digest = checkpoint.resolve_pinned(args.checkpoint)
    differences = export_onnx(checkpoint.load(pinned), args.out)
    return {"out": args.out, "checkpoint": digest, "opset": OPSET, "max_difference": differences}
