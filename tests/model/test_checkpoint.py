from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ray_jobs.recipes import recipe
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest


@pytest.fixture
def model() -> Retriever:
    return build(recipe("smoke").model, seed=5)


def save(uri: object, model: Retriever, name: str = "step-1", **options: object) -> str:
    manifest = checkpoint.save(
        str(uri), name, model, recipe("smoke"), made_from="sha256:0", counts={"steps": 1}, **options  # type: ignore[arg-type]
    )  # fmt: skip
    return manifest.digest


def test_a_checkpoint_rebuilds_its_model(model: Retriever, tmp_path: Path) -> None:
    digest = save(tmp_path, model)
    again = checkpoint.load(str(tmp_path))
    picture = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = model.text.tokenize(["green mug, thin handle"])
    assert torch.equal(again.encode_photo(picture), model.encode_photo(picture))
    assert torch.equal(again.encode_sketch(picture), model.encode_sketch(picture))
    assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))
    assert not again.training
    assert checkpoint.read_digest(str(tmp_path)) == digest


@pytest.mark.parametrize("part", ["sketch", "photo", "text"])
def test_one_part_opens_only_its_own_file(model: Retriever, tmp_path: Path, part: str) -> None:
    save(tmp_path, model)
    for other in {"sketch", "photo", "text"} - {part}:
        (tmp_path / "step-1" / f"{other}.safetensors").unlink()
    tower = checkpoint.load(str(tmp_path), part=part)  # type: ignore[call-overload]
    expected = dict(getattr(model, part).named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in tower.named_parameters())


def test_preprocessing_and_names_travel_in_the_checkpoint(model: Retriever, tmp_path: Path) -> None:
    save(tmp_path, model)
    saved = checkpoint.read_recipe(str(tmp_path))
    assert checkpoint.load(str(tmp_path), part="photo").preprocess == recipe("smoke").model.photo.preprocess
    assert saved.model.photo.options["embed_dim"] == 32


def test_the_newest_opens_and_a_half_written_one_does_not_count(model: Retriever, tmp_path: Path) -> None:
    first = save(tmp_path, model, "step-1")
    folder = Folder(str(tmp_path)).child("step-2")
    folder.write("sketch.safetensors", b"cut sho")  # a run that died while it wrote
    assert checkpoint.read_digest(str(tmp_path)) == first
    checkpoint.load(str(tmp_path))
    second = save(tmp_path, build(recipe("smoke").model, seed=6), "step-2")
    assert checkpoint.read_digest(str(tmp_path)) == second != first


def test_prune_keeps_the_newest_and_the_published(model: Retriever, tmp_path: Path) -> None:
    for step in range(4):
        save(tmp_path, model, f"step-{step}")
    checkpoint.prune(str(tmp_path), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["step-2", "step-3"]
    checkpoint.load(str(tmp_path))


def test_the_digest_names_the_towers_not_the_training_state(model: Retriever, tmp_path: Path) -> None:
    plain = save(tmp_path / "a", model)
    trained = save(tmp_path / "b", model, training={"step": 3, "optimizer": {}})
    assert plain == trained
    assert checkpoint.read_training(str(tmp_path / "b")) == {"step": 3, "optimizer": {}}
    assert checkpoint.read_training(str(tmp_path / "a")) is None


def test_what_is_no_checkpoint_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint here.*ray_jobs/train\.py"):
        checkpoint.load(str(tmp_path))


def test_a_damaged_tower_is_refused(model: Retriever, tmp_path: Path) -> None:
    save(tmp_path, model)
    (tmp_path / "step-1" / "text.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(InputError, match=r"text\.safetensors: damaged"):
        checkpoint.load(str(tmp_path))


def test_files_that_are_not_what_the_manifest_says_are_refused(model: Retriever, tmp_path: Path) -> None:
    save(tmp_path, model)
    uri = str(tmp_path)
    pinned, digest = checkpoint.pinned(uri)
    assert (pinned, digest) == (f"{uri}/step-1", checkpoint.read_digest(uri))
    checkpoint.verify(pinned, digest)
    tower = tmp_path / "step-1" / "photo.safetensors"
    tower.write_bytes(tower.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"step-1: its files are not what manifest\.json says"):
        checkpoint.verify(pinned, digest)


def test_counts_and_origin_are_in_the_manifest(model: Retriever) -> None:
    save("memory://checkpoints/run", model)
    manifest = read_manifest(Folder("memory://checkpoints/run"), "checkpoint")
    assert (manifest.counts, manifest.made_from) == ({"steps": 1}, "sha256:0")


def test_tensors_with_the_module_names_of_an_old_checkpoint_open(tmp_path: Path) -> None:
    """Version 0.1 wrote `finer`, `details` and `usual`."""
    image = replace(recipe("chairs_cpu").model.photo, weights=None)
    r = replace(recipe("chairs_cpu"), model=replace(recipe("chairs_cpu").model, photo=image, sketch=image))
    retriever = build(r.model)
    checkpoint.save(str(tmp_path), "a", retriever, r, made_from="sha256:0", counts={"steps": 1})
    old = {new: old for old, new in checkpoint.RENAMED_MODULES.items()}
    file = tmp_path / "a" / "photo.safetensors"
    tensors = safetensors.torch.load_file(file)
    renamed = {".".join(old.get(part, part) for part in name.split(".")): t for name, t in tensors.items()}
    assert {name.split(".")[0] for name in renamed} >= {"finer", "details", "hubness"}
    safetensors.torch.save_file(renamed, file)
    opened = checkpoint.load(str(tmp_path), "photo").state_dict()
    assert all(torch.equal(tensor, opened[name]) for name, tensor in retriever.photo.state_dict().items())
