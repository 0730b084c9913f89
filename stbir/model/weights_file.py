"""Weights files: the named tensors of a safetensors or torch file, also of a training checkpoint."""

import contextlib
import pickle
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PosixPath, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from stbir.errors import InputError
from stbir.storage.folder import read_uri

SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".npz", ".ckpt", ".tar"}
# Entries of a training checkpoint that hold its tensors. As timm does, the averaged weights are preferred.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "module")
# Prefixes that DistributedDataParallel and torch.compile add.
_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """A local path of the file; a temporary copy if the URI is remote."""
    if "://" not in uri:
        if not Path(uri).is_file():
            raise InputError(f"weights: no file {uri}; give a tag, a path or a URI")
        yield uri
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / PurePosixPath(uri).name
        path.write_bytes(read_uri(uri))
        yield str(path)


def read_state_dict(uri: str) -> dict[str, Tensor]:
    """The named tensors of a safetensors or torch file at any URI; floating point ones as float32.

    Finds them in a training checkpoint (`state_dict`, `model`, …), without the prefixes of data parallelism
    and compilation. Torch files are loaded with `weights_only=True`. Raises InputError for any other file.
    """
    with local_copy(uri) as path:
        try:
            state = _find_tensors(_load(path))
        except MemoryError:
            raise
        except Exception as error:  # torch and safetensors raise arbitrary errors on damaged files
            raise InputError(f"weights: {uri} is not a weights file: {_reason(error)}") from error
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _load(path: str) -> Any:
    if not Path(path).stat().st_size:
        raise ValueError("it is empty")
    if path.endswith(".safetensors"):
        return safetensors.torch.load_file(path)
    if zipfile.is_zipfile(path) and _is_torchscript(path):
        raise ValueError("it is a TorchScript program; save the state_dict() of torch.jit.load(file)")
    with torch.serialization.safe_globals(_harmless_classes()):
        return torch.load(path, map_location="cpu", weights_only=True)


def _harmless_classes() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What timm's training script saves beside tensors: options, paths and metrics. None of it runs code."""
    scalar = cast(Callable[..., Any], np.float64(0).__reduce__()[0])
    return [
        *((SimpleNamespace, "argparse.Namespace"), PosixPath, np.dtype, type(np.dtype(np.float64))),
        *((scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")),
    ]


def _is_torchscript(path: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())


def _find_tensors(loaded: Any) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it holds a {type(loaded).__name__}, not named tensors; save model.state_dict()")
    for wrapper in _WRAPPERS:
        if isinstance(loaded.get(wrapper), Mapping):
            return _find_tensors(loaded[wrapper])
    tensors = {_PREFIXES.sub("", str(name)): t for name, t in loaded.items() if isinstance(t, Tensor)}
    if not tensors:
        raise ValueError(f"it holds no named tensors, only {', '.join(map(str, loaded))[:100] or 'nothing'}")
    return tensors


def _reason(error: Exception) -> str:
    """One line, without torch's advice to load the file in an unsafe way."""
    message = " ".join(str(error).split())
    if found := re.search(r"Unsupported (?:global|class): GLOBAL (\S+)|Unsupported class (\S+)", message):
        name = next(filter(None, found.groups()))
        return f"it pickles objects of {name} beside tensors; save only model.state_dict()"
    if isinstance(error, pickle.UnpicklingError) or not message:
        return "neither safetensors nor a file of torch.save"
    return message[:300]
