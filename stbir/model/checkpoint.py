"""Checkpoint artifact: a safetensors file per encoder and gate, the recipe, a model card, training state.

A run writes each checkpoint to `<uri>/<name>/` with its own manifest. The manifest at `<uri>` points to the
published one and is written last, so `<uri>` always opens a complete checkpoint.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, overload

import safetensors.torch
import torch
from torch import Tensor, nn

from stbir.config import MODALITIES, PARTS, ModelConfig, Part, Recipe
from stbir.config.recipe_json import from_json, to_json
from stbir.errors import InputError
from stbir.model.builder import build_encoder, build_gate, resolve
from stbir.model.encoders import Encoder, ImageEncoder, TextEncoder
from stbir.model.fusion import Gate
from stbir.model.model_card import MODEL_CARD_FILE, model_card
from stbir.model.retriever import Retriever
from stbir.model.weights import load_strict
from stbir.storage.folder import Folder
from stbir.storage.manifest import (
    MANIFEST_FILE,
    Manifest,
    combine_digests,
    content_digest,
    read_manifest,
    write_manifest,
)

CONFIG_FILE = "config.json"
TRAINING_FILE = "training.pt"
UNTRAINED = "step-00000000"
# Module names of checkpoints written before version 0.2: old → new.
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
    is_published: bool = True,
) -> Manifest:
    """Write `<uri>/<name>/`; if `is_published`, then point the manifest at `<uri>` to it.

    Older checkpoints stay until `prune`. `training` holds only tensors and plain values, because it is
    loaded with `weights_only=True`.
    """
    folder, sizes = Folder(uri).child(name), dict[str, int]()
    for file, data in _files(retriever, recipe, training):
        folder.write(file, data)
        sizes[file] = len(data)
    all_details = {**(details or {}), "recipe": recipe.name, "folder": ""}
    manifest = Manifest("checkpoint", _digest(folder), counts, made_from, all_details)
    card = model_card(retriever, recipe, manifest.digest, counts, all_details).encode()
    folder.write(MODEL_CARD_FILE, card)
    sizes[MODEL_CARD_FILE] = len(card)
    write_manifest(folder, manifest, sizes)
    if is_published:
        pointer = replace(manifest, details={**manifest.details, "folder": name})
        write_manifest(Folder(uri), pointer, {f"{name}/{file}": size for file, size in sizes.items()})
    return manifest


def add_details(uri: str, details: dict[str, Any]) -> None:
    """Add to the details of the published checkpoint, without writing its files again."""
    root = Folder(uri)
    name = read_manifest(root, "checkpoint").detail("folder")
    for folder in (root.child(name), root):
        manifest = read_manifest(folder, "checkpoint")
        write_manifest(folder, replace(manifest, details={**manifest.details, **details}), {})


def save_untrained(uri: str, retriever: Retriever, recipe: Recipe) -> Manifest:
    """Write and publish a model that has not been trained, as step 0; does nothing if it is there already.

    Raises InputError if `uri` holds another checkpoint.
    """
    root = Folder(uri)
    if root.exists(MANIFEST_FILE):
        existing = read_manifest(root, "checkpoint")
        if existing.digest != compute_digest(retriever, recipe):
            raise InputError(f"{uri}: contains another checkpoint; choose another folder")
        return existing
    return save(uri, UNTRAINED, retriever, recipe, made_from="", counts={"steps": 0})


def _files(
    retriever: Retriever, recipe: Recipe, training: dict[str, Any] | None
) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of the files of a checkpoint, of which one at a time is in memory."""
    for modality in MODALITIES:
        yield _file(modality), _tensors(retriever.encoder(modality))
    if retriever.gate is not None:
        yield _file("gate"), _tensors(retriever.gate)
    yield CONFIG_FILE, to_json(replace(recipe, model=resolve(recipe.model))).encode()
    if training is not None:
        buffer = io.BytesIO()
        torch.save(training, buffer)
        yield TRAINING_FILE, buffer.getvalue()


def prune(uri: str, keep: int = 2) -> None:
    """Remove all but the newest `keep` checkpoints (names sort by age); the published one always stays."""
    root = Folder(uri)
    current = read_manifest(root, "checkpoint").detail("folder")
    names = [name.split("/")[0] for name in root.list_files("*/manifest.json")]
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
    """The model of a checkpoint, or one `part` of it, on the CPU and in eval mode.

    Loading a part opens only its file. The gate of a model without one is None. Raises InputError for a
    missing or damaged checkpoint.
    """
    folder = _folder(uri)
    config = read_recipe(uri).model
    if part is not None:
        return _load_part(folder, config, part)
    return Retriever(**{part: _load_part(folder, config, part) for part in PARTS}).eval()  # type: ignore[arg-type]


def read_tensors(uri: str, part: Part) -> dict[str, Tensor]:
    """The named tensors of one part. Raises InputError for a missing or damaged checkpoint."""
    return _read_tensors(_folder(uri), part)


def read_recipe(uri: str) -> Recipe:
    """The recipe of a checkpoint, with its model configuration resolved."""
    folder = _folder(uri)
    return from_json(folder.read(CONFIG_FILE), f"{folder.uri}/{CONFIG_FILE}")


def read_digest(uri: str) -> str:
    """The digest of the checkpoint's parts and configuration; it identifies the embedding space."""
    return resolve_pinned(uri)[1]


def resolve_pinned(uri: str) -> tuple[str, str]:
    """The immutable URI and the digest of the checkpoint that `uri` currently points to.

    A training run moves `uri` after every epoch. Code that opens a checkpoint more than once must use the
    immutable URI.
    """
    root = Folder(uri)
    manifest = read_manifest(root, "checkpoint")
    name = manifest.detail("folder")
    return root.child(name).uri if name else root.uri, manifest.digest


def compute_digest(retriever: Retriever, recipe: Recipe) -> str:
    """The digest that a checkpoint of this model and recipe has. Writes nothing."""
    files = _files(retriever, recipe, None)
    return combine_digests({name: hashlib.sha256(data).hexdigest() for name, data in files})


def verify(uri: str, digest: str) -> None:
    """Check the files of a checkpoint against its digest. Raises InputError if they differ."""
    if _digest(_folder(uri)) != digest:
        raise InputError(
            f"{uri}: files do not match the digest in {MANIFEST_FILE}; use an earlier checkpoint"
        )


def read_training(uri: str) -> dict[str, Any] | None:
    """The training state that the checkpoint was saved with, or None."""
    folder = _folder(uri)
    if not folder.exists(TRAINING_FILE):
        return None
    data = io.BytesIO(folder.read(TRAINING_FILE))
    return torch.load(data, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def _folder(uri: str) -> Folder:
    return Folder(resolve_pinned(uri)[0])


def _digest(folder: Folder) -> str:
    parts = [_file(part) for part in PARTS if part in MODALITIES or folder.exists(_file(part))]
    return content_digest(folder, [*parts, CONFIG_FILE])


def _file(part: Part) -> str:
    return f"{part}.safetensors"


def _tensors(module: nn.Module) -> bytes:
    state = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    return bytes(safetensors.torch.save(state))


def _load_part(folder: Folder, config: ModelConfig, part: Part) -> Encoder | Gate | None:
    module = build_gate(config) if part == "gate" else build_encoder(config, part, pretrained=False)
    if module is None:
        return None
    load_strict(module, _read_tensors(folder, part), f"{folder.uri}/{_file(part)}")
    return module.eval()


def _read_tensors(folder: Folder, part: Part) -> dict[str, Tensor]:
    name = _file(part)
    try:
        state = safetensors.torch.load(folder.read(name))
    except safetensors.SafetensorError as error:
        raise InputError(f"{folder.uri}/{name}: damaged ({error}); use an earlier checkpoint") from error
    return {_renamed(key): tensor for key, tensor in state.items()}


def _renamed(key: str) -> str:
    """The current name of a tensor of an old checkpoint."""
    return ".".join(RENAMED_MODULES.get(part, part) for part in key.split("."))
