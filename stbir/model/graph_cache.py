"""A local folder of exported graphs of encoders, by a digest of weights and structure."""

import contextlib
import hashlib
import logging
import os
import uuid
from itertools import chain
from pathlib import Path

from torch import nn

from stbir.config import Modality

log = logging.getLogger(__name__)
DEFAULT_FOLDER = Path("~/.cache/stbir/encoders")
MAX_FILES = 16  # the least recently used ones are removed


class GraphCache:
    """ONNX files that several processes share. A folder that cannot be written to only costs time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser()

    def read(self, encoder: nn.Module, modality: Modality) -> bytes | None:
        """The graph of an encoder; None if there is none."""
        path = self._path(encoder, modality)
        try:
            graph = path.read_bytes()
            os.utime(path)  # the time of the last use
        except OSError:
            return None
        return graph

    def write(self, encoder: nn.Module, modality: Modality, graph: bytes) -> None:
        """Store a graph; logs a warning if the folder does not take it."""
        path = self._path(encoder, modality)
        part = path.with_name(f"{uuid.uuid4().hex}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(graph)
            part.replace(path)
            self._prune()
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            log.warning("%s: the graph is not stored (%s); the next process exports it again", path, error)

    def remove(self, encoder: nn.Module, modality: Modality) -> None:
        """Remove the graph of an encoder, if any."""
        self._path(encoder, modality).unlink(missing_ok=True)

    def _path(self, encoder: nn.Module, modality: Modality) -> Path:
        return self._folder / f"{_digest(encoder)}-{modality}.onnx"

    def _prune(self) -> None:
        paths = sorted(self._folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime)
        for path in paths[:-MAX_FILES]:
            path.unlink(missing_ok=True)


def _digest(encoder: nn.Module) -> str:
    """Of the modules as torch prints them, and of all parameters and buffers (also the pixels' mean)."""
    digest = hashlib.sha256(repr(encoder).encode())
    for name, tensor in chain(encoder.named_parameters(), encoder.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().flatten().numpy().data)
    return digest.hexdigest()[:32]
