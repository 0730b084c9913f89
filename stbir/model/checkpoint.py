"""CHECKPOINT: a safetensors file a tower and for the gate, the recipe, training state; needs nothing else.

A run keeps `<uri>/<name>/` for each checkpoint, whole with a manifest of its own, and moves the manifest
at `<uri>` to the newest as the last step. So `<uri>` always opens the last good one.
"""

import io
from dataclasses import replace
from typing import Any, Literal, overload

import safetensors.torch
import torch
from torch import nn

from stbir.config import MODALITIES, PARTS, ModelConfig, Part, Recipe
from stbir.config.recipe_json import from_json, to_json
from stbir.errors import InputError
from stbir.model.builder import encoder, gate, resolve
from stbir.model.encoders import Encoder, ImageEncoder, TextEncoder
from stbir.model.fusion import Gate
from stbir.model.retriever import Retriever
from stbir.model.weights import fit
from stbir.storage.folder import Folder
from stbir.storage.manifest import NAME, Manifest, content_digest, read_manifest, write_manifest

CONFIG = "config.json"
TRAINING = "training.pt"
# Modules of checkpoints written before 0.2: old → new.
RENAMED_MODULES = {"finer": "multiscale", "details": "appearance", "usual": "mean_similarity"}


def save(
    uri: str,
    name: str,
    retriever: Retriever,
    recipe: Recipe,
    *,
    made_from: str,
    counts: dict[str, int],
    details: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> Manifest:
    """Write `<uri>/<name>/` whole, then let `<uri>` open it. Earlier checkpoints stay until `prune`.

    `training` holds tensors and plain values only (it is read back with `weights_only`).
    """
    folder = Folder(uri).child(name)
    for modality in MODALITIES:
        folder.write(_file(modality), _tensors(retriever.tower(modality)))
    if retriever.gate is not None:
        folder.write(_file("gate"), _tensors(retriever.gate))
    folder.write(CONFIG, to_json(replace(recipe, model=resolve(recipe.model))).encode())
    digest = _digest(folder)
    if training is not None:
        buffer = io.BytesIO()
        torch.save(training, buffer)
        folder.write(TRAINING, buffer.getvalue())
    about = {**(details or {}), "recipe": recipe.name, "folder": ""}
    manifest = Manifest("checkpoint", digest, counts, made_from, about)
    write_manifest(folder, manifest)
    write_manifest(Folder(uri), replace(manifest, details={**manifest.details, "folder": name}))
    return manifest


def prune(uri: str, keep: int = 2) -> None:
    """Remove all but the newest `keep` checkpoints of a run (names sort by age), never the published one."""
    root = Folder(uri)
    current = read_manifest(root, "checkpoint").detail("folder")
    names = [name.split("/")[0] for name in root.names("*/manifest.json")]
    for name in names[:-keep]:
        if name != current:
            root.child(name).remove()


@overload
def load(uri: str, part: None = None) -> Retriever: ...
@overload
def load(uri: str, part: Literal["sketch", "photo"]) -> ImageEncoder: ...
@overload
def load(uri: str, part: Literal["text"]) -> TextEncoder: ...
@overload
def load(uri: str, part: Literal["gate"]) -> Gate | None: ...
def load(uri: str, part: Part | None = None) -> Retriever | Encoder | Gate | None:
    """The model of a checkpoint, or one part of it: only that part's file is then opened.

    A model may have no gate: None.

    On the CPU and in eval mode. Raises InputError where there is no checkpoint or it is damaged.
    """
    folder = _folder(uri)
    config = read_recipe(uri).model
    if part is not None:
        return _load_part(folder, config, part)
    return Retriever(**{part: _load_part(folder, config, part) for part in PARTS}).eval()  # type: ignore[arg-type]


def read_recipe(uri: str) -> Recipe:
    """The recipe a checkpoint was trained by, its model resolved."""
    folder = _folder(uri)
    return from_json(folder.read(CONFIG), f"{folder.uri}/{CONFIG}")


def read_digest(uri: str) -> str:
    """The digest of the checkpoint's parts and configuration: the name of its vector space."""
    return pinned(uri)[1]


def pinned(uri: str) -> tuple[str, str]:
    """The URI and the digest of the checkpoint that `uri` opens now.

    A training run moves `uri` on with every epoch; what is opened twice is opened by this one.
    """
    root = Folder(uri)
    manifest = read_manifest(root, "checkpoint")
    name = manifest.detail("folder")
    return root.child(name).uri if name else root.uri, manifest.digest


def verify(uri: str, digest: str) -> None:
    """Raises InputError where the files of the (pinned) checkpoint are not those of that digest."""
    if _digest(_folder(uri)) != digest:
        raise InputError(f"{uri}: its files are not what {NAME} says; take an earlier checkpoint")


def read_training(uri: str) -> dict[str, Any] | None:
    """The training state saved beside the towers, or None."""
    folder = _folder(uri)
    if not folder.exists(TRAINING):
        return None
    state: dict[str, Any] = torch.load(
        io.BytesIO(folder.read(TRAINING)), map_location="cpu", weights_only=True
    )
    return state


def _folder(uri: str) -> Folder:
    return Folder(pinned(uri)[0])


def _digest(folder: Folder) -> str:
    parts = [_file(part) for part in PARTS if part in MODALITIES or folder.exists(_file(part))]
    return content_digest(folder, [*parts, CONFIG])


def _file(part: Part) -> str:
    return f"{part}.safetensors"


def _tensors(module: nn.Module) -> bytes:
    state = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    return bytes(safetensors.torch.save(state))


def _load_part(folder: Folder, config: ModelConfig, part: Part) -> Encoder | Gate | None:
    empty = gate(config) if part == "gate" else encoder(config, part, pretrained=False)
    if empty is None:
        return None
    name = _file(part)
    try:
        state = safetensors.torch.load(folder.read(name))
    except safetensors.SafetensorError as error:
        raise InputError(f"{folder.uri}/{name}: damaged ({error}); take an earlier checkpoint") from error
    fit(empty, {_current(key): tensor for key, tensor in state.items()}, f"{folder.uri}/{name}")
    return empty.eval()


def _current(key: str) -> str:
    """The name of a tensor in the present modules."""
    return ".".join(RENAMED_MODULES.get(part, part) for part in key.split("."))
