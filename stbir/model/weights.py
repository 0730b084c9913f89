"""Pretrained weights from a tag, path or URI. Names and shapes must match those of the module."""

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import open_clip
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from stbir.errors import InputError
from stbir.storage.folder import read_uri

LOAD_ERRORS = (
    *(RuntimeError, KeyError, ValueError, AttributeError, TypeError),
    *(safetensors.SafetensorError, pickle.UnpicklingError),
)
_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".npz", ".ckpt"}


def is_pretrained_tag(weights: str) -> bool:
    """Whether `weights` is the tag of published weights (e.g. "openai") rather than a file."""
    return "/" not in weights and PurePosixPath(weights).suffix not in _SUFFIXES


def load_clip_weights(model: nn.Module, name: str, weights: str) -> None:
    """Load weights into a complete CLIP `model` (an open_clip CustomTextCLIP) named `name`.

    Raises InputError for an unknown tag, an unreadable file, or names and shapes that do not match.
    """
    if is_pretrained_tag(weights):
        _load_clip_file(model, _download(name, weights), weights)
        return
    with local_copy(weights) as path:
        _load_clip_file(model, path, weights)


def pretrained_config(name: str, weights: str | None) -> dict[str, Any]:
    """open_clip's configuration of a tag (e.g. `quick_gelu`); empty for files. Raises for an unknown tag."""
    if weights is None or not is_pretrained_tag(weights):
        return {}
    config = open_clip.pretrained.get_pretrained_cfg(name, weights)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "no tags"
        raise InputError(f"weights: open_clip has no {weights!r} for {name!r}; it has {tags}")
    return dict(config)


def _download(name: str, tag: str) -> str:
    config = pretrained_config(name, tag)
    try:
        return str(open_clip.pretrained.download_pretrained(config))
    except Exception as error:  # the Hugging Face client raises many types
        raise InputError(
            f"weights: {tag!r} of {name!r} cannot be downloaded ({type(error).__name__});"
            " give a local path or URI of the file instead"
        ) from error


def _load_clip_file(model: nn.Module, path: str, weights: str) -> None:
    try:
        open_clip.load_checkpoint(model, path)
    except LOAD_ERRORS as error:
        raise InputError(f"weights: {weights} does not match the model: {_one_line(error)}") from error


@contextmanager
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

    Torch files are loaded with `weights_only=True`. Raises InputError for any other file.
    """
    with local_copy(uri) as path:
        try:
            state = _load_tensors(path)
        except (*LOAD_ERRORS, OSError, EOFError) as error:
            raise InputError(f"weights: {uri} is not a weights file ({_one_line(error)})") from error
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _load_tensors(path: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        return dict(safetensors.torch.load_file(path))
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    state = loaded.get("state_dict", loaded)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_strict(
    module: nn.Module, state: dict[str, Tensor], source: str, ignore: tuple[str, ...] = ()
) -> None:
    """Load `state` into `module`. Unexpected entries are allowed only under the prefixes in `ignore`.

    Raises InputError that names the missing, unexpected and differently shaped entries.
    """
    expected = module.state_dict()
    loaded = {k: v for k, v in state.items() if k in expected or not k.startswith(ignore or ("\0",))}
    mismatched = [
        f"{k} is {tuple(loaded[k].shape)}, needs {tuple(expected[k].shape)}"
        for k in expected
        if k in loaded and loaded[k].shape != expected[k].shape
    ]
    missing = [
        f"{k} is missing" for k in expected if k not in loaded and not k.endswith("num_batches_tracked")
    ]
    unexpected = [f"{k} is not in the model" for k in loaded if k not in expected]
    if errors := mismatched + missing + unexpected:
        more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
        raise InputError(f"weights: {source} does not match the model: {'; '.join(errors[:3])}{more}")
    module.load_state_dict(loaded, strict=False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
