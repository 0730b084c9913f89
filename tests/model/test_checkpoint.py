from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.small import HALF
from stbir.config import ImageEncoderConfig
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest


@pytest.fixture
def model() -> Retriever:
    return build_retriever(recipe("smoke").model, seed=5)


def save(uri: object, model: Retriever, name: str = "step-1", **options: object) -> str:
    manifest = checkpoint.save(
        str(uri), name, model, recipe("smoke"), made_from="sha256:0", counts={"steps": 1}, **options  # type: ignore[arg-type]
    )  # fmt: skip
    return manifest.digest


def test_checkpoint_restores_the_model(model: Retriever, tmp_path: Path) -> None:
    digest = save(tmp_path, model)
    loaded = checkpoint.load(str(tmp_path))
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = model.text.tokenize(["green mug, thin handle"])
    assert torch.equal(loaded.encode_photo(image), model.encode_photo(image))
    assert torch.equal(loaded.encode_sketch(image), model.encode_sketch(image))
    assert torch.equal(loaded.encode_text(tokens), model.encode_text(tokens))
    assert not loaded.training
    assert checkpoint.read_digest(str(tmp_path)) == digest


@pytest.mark.parametrize("part", ["sketch", "photo", "text"])
def test_loading_one_part_opens_only_its_file(model: Retriever, tmp_path: Path, part: str) -> None:
    save(tmp_path, model)
    for other in {"sketch", "photo", "text"} - {part}:
        (tmp_path / "step-1" / f"{other}.safetensors").unlink()
    encoder = checkpoint.load(str(tmp_path), part=part)  # type: ignore[call-overload]
    expected = dict(getattr(model, part).named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in encoder.named_parameters())


def test_checkpoint_contains_preprocessing_and_resolved_options(model: Retriever, tmp_path: Path) -> None:
    save(tmp_path, model)
    saved = checkpoint.read_recipe(str(tmp_path))
    assert checkpoint.load(str(tmp_path), part="photo").preprocess == recipe("smoke").model.photo.preprocess
    assert saved.model.photo.options["embed_dim"] == 32


def test_newest_complete_checkpoint_opens(model: Retriever, tmp_path: Path) -> None:
    digest = save(tmp_path, model, "step-1")
    folder = Folder(str(tmp_path)).child("step-2")
    folder.write("sketch.safetensors", b"cut sho")  # a run that died while writing
    assert checkpoint.read_digest(str(tmp_path)) == digest
    checkpoint.load(str(tmp_path))
    newer = save(tmp_path, build_retriever(recipe("smoke").model, seed=6), "step-2")
    assert checkpoint.read_digest(str(tmp_path)) == newer != digest


def test_prune_keeps_the_newest_and_the_published_checkpoint(model: Retriever, tmp_path: Path) -> None:
    for step in range(4):
        save(tmp_path, model, f"step-{step}")
    checkpoint.prune(str(tmp_path), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["step-2", "step-3"]
    checkpoint.load(str(tmp_path))


def test_digest_covers_the_encoders_not_the_training_state(model: Retriever, tmp_path: Path) -> None:
    plain = save(tmp_path / "a", model)
    trained = save(tmp_path / "b", model, training={"step": 3, "optimizer": {}})
    assert plain == trained
    assert checkpoint.read_training(str(tmp_path / "b")) == {"step": 3, "optimizer": {}}
    assert checkpoint.read_training(str(tmp_path / "a")) is None


def test_error_for_a_missing_checkpoint_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint here.*ray_jobs/train\.py"):
        checkpoint.load(str(tmp_path))


def test_damaged_file_is_rejected(model: Retriever, tmp_path: Path) -> None:
    save(tmp_path, model)
    (tmp_path / "step-1" / "text.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(InputError, match=r"text\.safetensors: damaged"):
        checkpoint.load(str(tmp_path))


def test_verify_rejects_files_that_differ_from_the_manifest(model: Retriever, tmp_path: Path) -> None:
    save(tmp_path, model)
    uri = str(tmp_path)
    version_uri, digest = checkpoint.resolve_pinned(uri)
    assert (version_uri, digest) == (f"{uri}/step-1", checkpoint.read_digest(uri))
    checkpoint.verify(version_uri, digest)
    file = tmp_path / "step-1" / "photo.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"step-1: files do not match the digest in manifest\.json"):
        checkpoint.verify(version_uri, digest)


def test_details_are_added_without_writing_the_files_again(model: Retriever, tmp_path: Path) -> None:
    save(tmp_path, model)
    times = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/*") if file.name != "manifest.json"}
    pinned = checkpoint.resolve_pinned(str(tmp_path))
    checkpoint.add_details(str(tmp_path), {"validation": {"mrr": 1.5}})
    for folder in (tmp_path, tmp_path / "step-1"):
        details = read_manifest(Folder(str(folder)), "checkpoint").details
        assert (details["validation"], details["recipe"]) == ({"mrr": 1.5}, "smoke")
    assert checkpoint.resolve_pinned(str(tmp_path)) == pinned
    assert times == {file: file.stat().st_mtime_ns for file in times}


def test_manifest_contains_counts_and_origin(model: Retriever) -> None:
    save("memory://checkpoints/run", model)
    manifest = read_manifest(Folder("memory://checkpoints/run"), "checkpoint")
    assert (manifest.counts, manifest.made_from) == ({"steps": 1}, "sha256:0")


def test_checkpoint_with_old_module_names_opens(tmp_path: Path) -> None:
    """Version 0.1 wrote `finer`, `details` and `usual`."""
    image = ImageEncoderConfig("timm", "test_resnet", HALF, multiscale=((8, 2),))
    smoke = recipe("smoke")
    model = replace(smoke.model, photo=image, appearance_dims=8, hubness=4)
    retriever = build_retriever(model)
    r = replace(smoke, model=model)
    checkpoint.save(str(tmp_path), "a", retriever, r, made_from="sha256:0", counts={"steps": 1})
    old_names = {new: old for old, new in checkpoint.RENAMED_MODULES.items()}
    file = tmp_path / "a" / "photo.safetensors"
    renamed = {
        ".".join(old_names.get(part, part) for part in name.split(".")): tensor
        for name, tensor in safetensors.torch.load_file(file).items()
    }
    assert {part for name in renamed for part in name.split(".")} >= {"finer", "details", "usual"}
    safetensors.torch.save_file(renamed, file)
    opened = checkpoint.load(str(tmp_path), "photo").state_dict()
    assert all(torch.equal(tensor, opened[name]) for name, tensor in retriever.photo.state_dict().items())
