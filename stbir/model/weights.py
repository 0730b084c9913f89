"""Pretrained weights by tag, path or URI, loaded strictly or refused by name and shape."""

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

UNFIT = (
    *(RuntimeError, KeyError, ValueError, AttributeError, TypeError),
    *(safetensors.SafetensorError, pickle.UnpicklingError),
)
_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".npz", ".ckpt"}


def is_tag(weights: str) -> bool:
    """Whether `weights` names a published set (e.g. "openai") rather than a file."""
    return "/" not in weights and PurePosixPath(weights).suffix not in _SUFFIXES


def load_clip(model: nn.Module, name: str, weights: str) -> None:
    """Load a whole CLIP's weights into `model` (an open_clip CustomTextCLIP called `name`).

    Raises InputError for an unknown tag, an unreadable file, or names and shapes that do not fit.
    """
    if is_tag(weights):
        _load_clip_file(model, _download(name, weights), weights)
        return
    with local_copy(weights) as path:
        _load_clip_file(model, path, weights)


def tag_details(name: str, weights: str | None) -> dict[str, Any]:
    """What open_clip knows of a tag (e.g. `quick_gelu`); empty for files."""
    if weights is None or not is_tag(weights):
        return {}
    details = open_clip.pretrained.get_pretrained_cfg(name, weights)
    if not details:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "no tags"
        raise InputError(f"weights: open_clip has no {weights!r} for {name!r}; it has {tags}")
    return dict(details)


def _download(name: str, tag: str) -> str:
    details = tag_details(name, tag)
    try:
        return str(open_clip.pretrained.download_pretrained(details))
    except Exception as error:  # the hub's client raises many kinds; all mean: not to be had from here
        raise InputError(
            f"weights: {tag!r} of {name!r} cannot be downloaded ({type(error).__name__});"
            " give a local path or URI of the file instead"
        ) from error


def _load_clip_file(model: nn.Module, path: str, weights: str) -> None:
    try:
        open_clip.load_checkpoint(model, path)
    except UNFIT as error:
        raise InputError(f"weights: {weights} does not fit: {_one_line(error)}") from error


@contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """A local path with the file's content; a temporary one where the URI is remote."""
    if "://" not in uri:
        if not Path(uri).is_file():
            raise InputError(f"weights: no file {uri}; give a tag, a path or a URI")
        yield uri
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / PurePosixPath(uri).name
        path.write_bytes(read_uri(uri))
        yield str(path)


def read_state(uri: str) -> dict[str, Tensor]:
    """The named tensors of a safetensors or torch file at any URI, as float32 where floating.

    Nothing is unpickled beyond tensors. Raises InputError for a file that is neither.
    """
    with local_copy(uri) as path:
        try:
            state = _state_of(path)
        except (*UNFIT, OSError, EOFError) as error:
            raise InputError(f"weights: {uri} is no weights file ({_one_line(error)})") from error
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _state_of(path: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        return dict(safetensors.torch.load_file(path))
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    state = loaded.get("state_dict", loaded)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def fit(module: nn.Module, state: dict[str, Tensor], source: str, ignore: tuple[str, ...] = ()) -> None:
    """Load `state` into `module`; entries whose name starts with one of `ignore` may be left over.

    Raises InputError that names what is missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    given = {k: v for k, v in state.items() if k in wanted or not k.startswith(ignore or ("\0",))}
    shapes = [
        f"{k} is {tuple(given[k].shape)}, needs {tuple(wanted[k].shape)}"
        for k in wanted
        if k in given and given[k].shape != wanted[k].shape
    ]
    missing = [f"{k} is missing" for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unknown = [f"{k} is not in the model" for k in given if k not in wanted]
    if wrong := shapes + missing + unknown:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"weights: {source} does not fit: {'; '.join(wrong[:3])}{more}")
    module.load_state_dict(given, strict=False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
