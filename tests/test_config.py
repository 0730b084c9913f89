import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ray_jobs.recipes import RETIRED, recipe, recipe_names
from ray_jobs.recipes.ablations import ABLATIONS
from ray_jobs.recipes.override import RENAMED_STAGES, override
from ray_jobs.recipes.stages import INTRA_MODAL, joint
from stbir.config import Noise, Objective, Preprocess, Sampling, Trainable, choices
from stbir.config.recipe_json import MOVED_STAGE_FIELDS, RENAMED_FIELDS, from_json, to_json
from stbir.errors import InputError
from stbir.training.curriculum import noise_level

OLD_RECIPES = ("smoke", "reference", "chairs_cpu")


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_round_trips_through_json(name: str) -> None:
    assert from_json(to_json(recipe(name))) == recipe(name)
    assert recipe(name).name == name


def test_override_replaces_one_field() -> None:
    changed = override(
        recipe("smoke"), ["stages.sketch.epochs=7", "batch_size=8", "augmentation=null", "name=mine"]
    )
    assert changed.stages[1].epochs == 7
    assert (changed.batch_size, changed.augmentation, changed.name) == (8, None, "mine")
    assert changed.stages[2:] == recipe("smoke").stages[2:]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stages.sketch.epoch=2", "no field 'epoch'; available: name, trainable"),
        ("stages.*.epoch=2", "no field 'epoch'; available: name, trainable"),
        ("stages.sketch.objective.pairs.2.nce=1", "no field '2'; available: 0, 1"),
        ("stages.sketch.objective.pairs.0.candidates=batch+hard", "hard_negatives > 0 require each other"),
        ('stages.pretrain.objective.pairs.0.anchor=["text"]', "positive: text retrieves itself"),
        ("augmentation.*=0", "no field '*'; available: flip, scale"),
        ("stages.colour.epochs=2", "no field 'colour'; available: pretrain, sketch"),
        ("batch_size.x=2", "no field 'x'"),
        ("batch_size=many", "batch_size: Input should be a valid integer"),
        ("stages.sketch.epochs=0", "greater than or equal to 1"),
        ("stages.*.optimizer.lr=-1", "optimizer.lr: Input should be greater than 0"),
        ("model.photo.library=keras", "model.photo.library"),
        ("batch_size", "FIELD=VALUE"),
        ("stages.pretrain.objective.pairs.0.nce=0", "no term would align the pair"),
        ('stages.pretrain.trainable.encoders=["sketch"]', "trainable.encoders: sketch is in no pair"),
        ("stages.text.trainable.encoders=[]", "encoders: none is trainable, nor the gate; name one"),
        ("stages.sketch.objective.pairs.*.candidates=hard", "sampling.hard_negatives > 0 require each other"),
        ("stages.sketch.name=pretrain", "duplicate name"),
        ("model.photo.preprocess.std=[0,1,1]", "greater than 0"),
        ("stages.sketch.trainable.shared=true", "trainable together or not at all"),
        ("stages.sketch.trainable.gate=true", "trainable.gate: no pair has the anchor sketch, text"),
        ("stages.image.trainable.gate=true", "trainable.gate: there is no gate; set model.gate"),
        ("stages.image.noise.kind=query", "needs a trainable sketch"),
        ("model.appearance_dims=8", "appearance_dims needs the feature maps of a timm photo encoder"),
        ("model.photo.grid=2", "grid needs a convolutional timm backbone"),
        ("model.photo.multiscale=[[16,8]]", "multiscale needs a convolutional timm backbone"),
    ],
)
def test_invalid_override_names_field_and_remedy(assignment: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        override(recipe("smoke"), [assignment])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_recipe_error_lists_the_recipes() -> None:
    with pytest.raises(InputError, match=r"no recipe 'best'.*smoke.*reference.*without_category"):
        recipe("best")


@pytest.mark.parametrize(
    ("name", "assignment", "message"),
    [
        (
            "chairs_cpu",
            "model.sketch.preprocess.size=96",
            "stages.pretrain_multi.trainable.shared: model.sketch must",
        ),
        (
            "smoke",
            "stages.text.trainable.shared=true",
            "stages.text.trainable.shared: stage sketch trained the sketch encoder alone",
        ),
        (
            "demo",
            "stages.joint.trainable.shared=true",
            "stages.joint.trainable.shared: sketches and photos would share batch",
        ),
    ],
)
def test_encoders_that_cannot_be_shared_are_refused(name: str, assignment: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        override(recipe(name), [assignment])
    assert message in str(error.value)


def test_noise_ramp_ends_within_its_stage() -> None:
    for name in recipe_names():
        for stage in recipe(name).stages:
            assert stage.noise is None or stage.noise.start + stage.noise.ramp <= stage.epochs


@pytest.mark.parametrize("path", ["", "model.", "model.photo.", "loss_constants."])
def test_a_recipe_with_a_field_of_the_future_is_refused(path: str) -> None:
    """Unlike a manifest: a field of a recipe changes what the model computes."""
    content = json.loads(to_json(recipe("smoke")))
    node = content
    for name in path.split(".")[:-1]:
        node = node[name]
    node["mixture"] = 3
    with pytest.raises(InputError, match=f"^x: {path}mixture: this version of stbir has no such field; inst"):
        from_json(json.dumps(content), "x")


def test_fields_are_validated() -> None:
    with pytest.raises(ValidationError):
        Preprocess(size=4, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ValidationError):
        Noise(0, 4, (0.1, 1.5), (0, 1))


def test_reference_recipe_has_the_published_values() -> None:
    reference = recipe("reference")
    assert [s.name for s in reference.stages] == ["sketch", "image", "text"]
    assert [s.epochs for s in reference.stages] == [8, 12, 8]
    assert {s.objective.category for s in reference.stages} == {0.2}
    pairs = [pair for s in reference.stages for pair in s.objective.pairs]
    assert {(p.nce, p.triplet, p.temperature, p.candidates) for p in pairs} == {(0.8, 0.7, 0.07, "hard")}
    assert {s.sampling for s in reference.stages} == {Sampling("one", hard_negatives=6)}
    [optimizer] = {s.optimizer for s in reference.stages}
    assert (reference.batch_size, optimizer.lr, optimizer.weight_decay, optimizer.grad_clip) == (
        *(16, 5e-5, 1e-4, 1),
    )
    constants = reference.loss_constants
    assert (constants.triplet_margin, constants.arcface_margin, constants.arcface_scale) == (0.2, 0.2, 32)


WITH_MODULES = [
    *("smoke", "demo", "reference", "stbir_s", "chairs_cpu_reference", "chairs_cpu_reference_fast")
]


@pytest.mark.parametrize("name", [*WITH_MODULES, "chairs_cpu", "chairs_cpu_fast"])
def test_curriculum_ablation_has_the_same_mean_noise(name: str) -> None:
    parent, ablated = recipe(name), recipe(f"{name}_without_curriculum")
    assert replace(ablated, name=name, stages=parent.stages) == parent
    for stage, constant in zip(parent.stages, ablated.stages, strict=True):
        assert replace(constant, noise=stage.noise) == stage
        if stage.noise and constant.noise:
            epochs = np.linspace(0, stage.epochs, 20_001)
            (p, s), (constant_p, constant_s) = (noise_level(n, epochs) for n in (stage.noise, constant.noise))
            assert np.ptp(constant_p) == np.ptp(constant_s) == 0
            assert constant_p.mean() == pytest.approx(p.mean(), rel=1e-3)
            assert (constant_p * constant_s).mean() == pytest.approx((p * s).mean(), rel=1e-3)


@pytest.mark.parametrize("name", WITH_MODULES)
def test_category_ablation_differs_only_in_its_classes(name: str) -> None:
    parent, ablated = recipe(name), recipe(f"{name}_without_category")
    assert replace(ablated, name=name, stages=parent.stages, num_clusters=None) == parent
    assert (ablated.num_clusters, {s.objective.category for s in ablated.stages}) == (1, {0})
    for stage, other in zip(parent.stages, ablated.stages, strict=True):
        assert replace(other, objective=stage.objective) == stage
        assert other.objective.pairs == stage.objective.pairs


@pytest.mark.parametrize("name", WITH_MODULES)
def test_joint_ablation_differs_only_in_what_trains(name: str) -> None:
    parent, ablated = recipe(name), recipe(f"{name}_joint_only")
    assert replace(ablated, name=name, stages=parent.stages) == parent
    names = ("sketch", "image", "text")
    all_pairs = {p for s in parent.stages if s.name in names for p in s.objective.pairs}
    for stage, other in zip(parent.stages, ablated.stages, strict=True):
        if stage.name not in names:
            assert other == stage
            continue
        assert other.trainable.encoders == ("sketch", "photo", "text")
        assert {*other.objective.pairs} == all_pairs
        assert other.corrupted == stage.corrupted
        parent_fields = {"trainable": stage.trainable, "objective": stage.objective, "noise": stage.noise}
        assert replace(other, **parent_fields) == stage  # same samples, so the same steps
        assert other.modalities == stage.modalities


@pytest.mark.parametrize("name", WITH_MODULES)
def test_ablations_that_replace_a_module(name: str) -> None:
    assert {s.noise for s in recipe(f"{name}_without_noise").stages if s.name != "fusion"} == {None}
    assert recipe(f"{name}_with_clusters").num_clusters == 24


def test_recipes_of_published_data_sets_use_all_queries_and_negatives() -> None:
    for name in ("stbir_s", "stbir_c", "stbir_d"):
        pairs = [pair for stage in recipe(name).stages for pair in stage.objective.pairs]
        assert {p.candidates for p in pairs} == {"batch+hard"}
        queries = {p.anchor for p in pairs if p.positive == "photo"}
        assert {frozenset(q) for q in queries} == {
            frozenset({"sketch"}),
            frozenset({"text"}),
            frozenset({"sketch", "text"}),
        }


def test_hubness_and_gate_ablations_exist_only_where_they_apply() -> None:
    parent, ablated = recipe("chairs_cpu"), recipe("chairs_cpu_without_gate")
    for name in ("chairs_cpu", "chairs_cpu_fast"):
        assert recipe(name).calibrate
        assert not recipe(f"{name}_without_hubness").calibrate
    assert parent.stages[:-1] == ablated.stages[:-1]
    for name in ("smoke_without_hubness", "reference_without_gate"):
        assert name not in recipe_names()
        with pytest.raises(InputError, match=f"{name}' equals '{name.split('_')[0]}'"):
            recipe(name)


@pytest.mark.parametrize(("old", "new"), RETIRED.items())
def test_retired_recipe_error_names_the_new_one(old: str, new: str) -> None:
    name = f"demo_{old}" if new in ABLATIONS else old
    with pytest.raises(InputError, match=f"{name!r} is now {name.replace(old, new)!r}"):
        recipe(name)


def test_retired_ablation_of_a_retired_recipe_names_both_new_names() -> None:
    new = "chairs_cpu_reference_fast_joint_only"
    with pytest.raises(InputError, match=f"'paper_brief_all_at_once' is now '{new}'"):
        recipe("paper_brief_all_at_once")


def test_renamed_field_error_names_the_new_one() -> None:
    for assignment, new in [
        ("batch=4", "batch_size"),
        ("optimizer.lr=1", "stages.*.optimizer.lr"),
        ("optimiser.clip=1", "stages.*.optimizer.grad_clip"),
        ("loss_constants.temperature=1", "stages.*.objective.pairs.*.temperature"),
        ("stages.sketch.tied=true", "stages.sketch.trainable.shared"),
        ('stages.sketch.trainable=["photo"]', "stages.sketch.trainable.encoders"),
        *((f"stages.image.{old}=1", f"stages.image.{new}") for old, new in MOVED_STAGE_FIELDS.items()),
    ]:
        with pytest.raises(InputError, match=re.escape(f"is now '{new}'")):
            override(recipe("smoke"), [assignment])


def test_asterisk_sets_a_field_of_all_stages_and_pairs() -> None:
    changed = override(
        recipe("smoke"), ["stages.*.optimizer.lr=0.5", "stages.*.objective.pairs.*.temperature=0.05"]
    )
    assert {stage.optimizer.lr for stage in changed.stages} == {0.5}
    assert {pair.temperature for stage in changed.stages for pair in stage.objective.pairs} == {0.05}
    assert [stage.name for stage in changed.stages] == [stage.name for stage in recipe("smoke").stages]


@pytest.mark.parametrize(("old", "new"), RENAMED_STAGES.items())
def test_renamed_stage_error_names_the_new_one(old: str, new: str) -> None:
    for name in ("smoke", "chairs_cpu"):
        with pytest.raises(InputError, match=f"'stages.{old}.epochs' is now 'stages.{new}.epochs'"):
            override(recipe(name), [f"stages.{old}.epochs=2"])


def test_removed_recipe_is_not_said_to_be_renamed() -> None:
    for name in ("stbir_c_small", "stbir_c_small_all_at_once"):
        with pytest.raises(InputError, match="'stbir_c_small' was removed; use chairs_cpu, whose results"):
            recipe(name)


@pytest.mark.parametrize("name", OLD_RECIPES)
def test_recipe_of_an_old_checkpoint_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written before stage fields were grouped, and the same with the field names of 0.1."""
    monkeypatch.delenv("STBIR_DATA", raising=False)
    old = Path(__file__).with_name("old_recipes")
    text = (old / f"{name}.json").read_text()
    # The recipe has changed since; this file has its old values in today's fields.
    expected = (
        from_json((old / f"{name}_converted.json").read_text()) if name == "chairs_cpu" else recipe(name)
    )
    assert from_json(text) == expected
    assert from_json(json.dumps(_with_old_names(json.loads(text)))) == expected


@pytest.mark.parametrize("path", ["", "optimizer.", "loss_constants.", "stages.2.", "stages.2.weights."])
def test_an_old_recipe_with_an_unknown_field_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=r"^x: .*mixture: this version of stbir has no such field"):
        from_json(old_recipe_with(path, mixture=3), "x")


@pytest.mark.parametrize("path", ["stages.2.weights", "stages.2.noise", "stages", "loss_constants"])
def test_a_damaged_old_recipe_is_refused(path: str) -> None:
    *parents, last = path.split(".")
    with pytest.raises(InputError, match=r"^x: not the recipe of any version"):
        from_json(old_recipe_with("".join(f"{name}." for name in parents), **{last: 7}), "x")


def old_recipe_with(path: str, **fields: Any) -> str:
    text = Path(__file__).with_name("old_recipes").joinpath("smoke.json").read_text()
    tree = json.loads(text)
    node: Any = tree
    for name in path.split(".")[:-1]:
        node = node[int(name) if name.isdigit() else name]
    node |= fields
    return json.dumps(tree)


def _with_old_names(node: Any, path: str = "") -> Any:
    """Rename fields to those of version 0.1, the inverse of reading an old recipe."""
    if isinstance(node, list):
        return [_with_old_names(item, path) for item in node]
    if not isinstance(node, dict):
        return node
    old = {new: old for old, new in RENAMED_FIELDS.get(path, {}).items()}
    return {old.get(k, k): _with_old_names(v, f"{path}.{k}".lstrip(".")) for k, v in node.items()}


def test_choices_of_options_equal_the_implementations() -> None:
    """The options are parsed before their implementations are imported, so both name the choices."""
    from ray_jobs.jobs.preflight import JOB_CHECKS, REQUIRED_OPTIONS
    from ray_jobs.jobs.prepare_shards import REQUIRED_PARTS
    from ray_jobs.training import profiling
    from stbir.catalogue import registry as catalogues
    from stbir.data.sources import registry as sources

    assert set(catalogues.KINDS) == set(choices.CATALOGUE_KINDS)
    assert {*sources.OWN_KINDS, *sources.KINDS} == set(choices.SOURCE_KINDS)
    assert set(profiling.PROFILERS) == set(choices.PROFILERS)
    assert set(REQUIRED_PARTS) == set(choices.REQUIREMENTS)
    assert set(JOB_CHECKS) == set(REQUIRED_OPTIONS) == set(choices.PREFLIGHT_JOBS)


def test_a_warped_view_needs_augmentation() -> None:
    trainable = Trainable(("sketch", "photo"))
    stage = replace(joint(1), trainable=trainable, objective=Objective(INTRA_MODAL))
    warping = replace(recipe("smoke"), stages=(stage,))
    with pytest.raises(InputError, match=r"stages.joint: without augmentation nothing is warped; set"):
        override(warping, ["augmentation=null"])


@pytest.mark.parametrize("name", ["shared_encoder", "shared_encoder_resnet50", "shared_encoder_clip"])
def test_recipes_with_a_shared_encoder(name: str) -> None:
    shared = recipe(name)
    [stage] = shared.stages
    assert stage.trainable.shared
    assert shared.model.sketch is None
    assert shared.model.photo.preprocess.resize == "stretch"
    pairs = stage.objective.pairs
    assert {(p.temperature, p.symmetric, p.candidates) for p in pairs} == {(0.05, True, "batch")}
    for suffix in ("joint_only", "without_category", "with_clusters", "without_curriculum"):
        with pytest.raises(InputError, match="which lacks that module"):
            recipe(f"{name}_{suffix}")


def test_preprocessing_of_an_old_checkpoint_pads() -> None:
    tree = json.loads(to_json(recipe("smoke")))
    del tree["model"]["photo"]["preprocess"]["resize"]
    assert from_json(json.dumps(tree)) == recipe("smoke")
