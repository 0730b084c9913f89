"""Pretrained weights from a tag, path or URI. Names and shapes must match those of the module."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from torch import Tensor, nn

from stbir.errors import InputError
from stbir.model.weights_file import SUFFIXES, local_copy, read_state_dict

# Entries of CLIP weights that the encoders do not use, or that OpenAI's TorchScript files have in addition.
_UNUSED_CLIP_ENTRIES = (
    *("logit_bias", "input_resolution", "context_length", "vocab_size"),
    "text.transformer.embeddings.position_ids",
    "text_decoder.",  # of CoCa, which writes captions
)
_NOT_CREATED = "model: cannot create {}: {}; check its name and options"
_MISMATCH = "weights: {} does not match the model: {}"


def is_pretrained_tag(weights: str) -> bool:
    """Whether `weights` is the tag of published weights (e.g. "openai") rather than a file."""
    return "/" not in weights and PurePosixPath(weights).suffix not in SUFFIXES


def load_clip_weights(model: nn.Module, name: str, weights: str) -> None:
    """Load weights into a complete CLIP `model` (an open_clip CustomTextCLIP) named `name`.

    Raises InputError for an unknown tag, an unreadable file, or names and shapes that do not match.
    """
    file = _download(name, weights) if is_pretrained_tag(weights) else weights
    if PurePosixPath(file).suffix == ".npz":  # big_vision's own format
        with local_copy(file) as path, convert_library_errors(weights, _MISMATCH):
            open_clip.load_checkpoint(model, path)
        return
    state = convert_state_dict(model, read_state_dict(file))
    if "positional_embedding" in state:  # both encoders at the top level
        state = convert_to_custom_text_state_dict(state)
    with convert_library_errors(weights, _MISMATCH):
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
    load_strict(model, state | {"logit_scale": model.logit_scale}, weights, ignore=_UNUSED_CLIP_ENTRIES)


@contextmanager
def convert_library_errors(subject: str, message: str = _NOT_CREATED) -> Iterator[None]:
    """Convert exceptions of timm and open_clip, for unusable names, options or weights, to InputError.

    `message` has a place for the subject and one for the reason.
    """
    try:
        yield
    except (
        AttributeError,
        RuntimeError,
        TypeError,
        LookupError,
        ValueError,
        OSError,
        AssertionError,
    ) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(message.format(subject, reason)) from error


def clip_config(name: str) -> dict[str, Any]:
    """open_clip's configuration of a model. Raises InputError for an unknown one."""
    config = open_clip.get_model_config(name)
    if config is None:
        raise InputError(f"model: open_clip has no {name!r}; see open_clip.list_models()")
    return dict(config)


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


def load_strict(
    module: nn.Module, state: dict[str, Tensor], source: str, ignore: tuple[str, ...] = ()
) -> None:
    """Load `state` into `module`. Unexpected entries are allowed only under the prefixes in `ignore`.

    Raises InputError that names the missing, unexpected and differently shaped entries, or one that is not
    finite.
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
    if not_finite := [k for k, v in loaded.items() if not torch.isfinite(v).all()]:
        raise InputError(f"weights: {source}: {not_finite[0]} holds NaN or infinity; take an earlier file")
    module.load_state_dict(loaded, strict=False)
