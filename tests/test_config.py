import itertools

import pytest
from pydantic import ValidationError

from ray_jobs.recipes import names, recipe
from ray_jobs.recipes.override import override
from stbir.config import Noise, Preprocess
from stbir.config.recipe_json import from_json, to_json
from stbir.errors import InputError


@pytest.mark.parametrize("name", names())
def test_a_recipe_survives_json(name: str) -> None:
    assert from_json(to_json(recipe(name))) == recipe(name)
    assert recipe(name).name == name


def test_an_override_replaces_one_field() -> None:
    changed = override(recipe("smoke"), ["stages.sketch.epochs=7", "batch=8", "augment=null", "name=mine"])
    assert changed.stages[1].epochs == 7
    assert (changed.batch, changed.augment, changed.name) == (8, None, "mine")
    assert changed.stages[2:] == recipe("smoke").stages[2:]


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("stages.sketch.epoch=2", "no field 'epoch'; there is name, learns"),
        ("stages.colour.epochs=2", "no field 'colour'; there is clip, sketch"),
        ("batch.size=2", "no field 'size'"),
        ("batch=many", "batch: Input should be a valid integer"),
        ("stages.sketch.epochs=0", "greater than or equal to 1"),
        ("optimiser.lr=-1", "optimiser.lr: Input should be greater than 0"),
        ("model.photo.library=keras", "model.photo.library"),
        ("batch", "FIELD=VALUE"),
        ("stages.clip.weights.nce=0", "nothing would align the towers"),
        ('stages.clip.learns=["sketch"]', "sketch learns but stands in no pair"),
        ("stages.sketch.negatives=stored", "negatives=stored and hard > 0 go together"),
        ("stages.sketch.name=clip", "two have one name"),
        ("model.photo.preprocess.std=[0,1,1]", "greater than 0"),
        ("stages.sketch.tied=true", "they learn together or not at all"),
        ('stages.sketch.learns=["sketch","gate"]', "gate learns but stands in no pair"),
        ('stages.image.learns=["gate"]', "there is no gate; set model.gate to its width"),
        ("stages.image.noise.kind=query", "neither of these learns"),
        ("model.details=8", "details needs the feature maps of a timm photo tower"),
        ("model.photo.grid=2", "grid needs a convolutional trunk"),
        ("model.photo.finer=[[16,8]]", "finer needs a convolutional trunk"),
    ],
)
def test_a_wrong_override_names_field_and_remedy(assignment: str, says: str) -> None:
    with pytest.raises(InputError) as refusal:
        override(recipe("smoke"), [assignment])
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no 'best'.*smoke.*paper.*without_category"):
        recipe("best")


@pytest.mark.parametrize(
    ("name", "assignment", "says"),
    [
        (
            "stbir_c_small",
            "model.sketch.preprocess.size=96",
            "stages.broad.tied: model.sketch must",
        ),
        ("smoke", "stages.text.tied=true", "stages.text.tied: stage sketch taught the sketch tower alone"),
        ("demo", "stages.joint.tied=true", "stages.joint.tied: both kinds of picture would share batch"),
    ],
)
def test_what_cannot_be_tied_is_refused(name: str, assignment: str, says: str) -> None:
    with pytest.raises(InputError) as refusal:
        override(recipe(name), [assignment])
    assert says in str(refusal.value)


def test_the_noise_is_at_its_height_before_a_stage_ends() -> None:
    for name in names():
        for stage in recipe(name).stages:
            assert stage.noise is None or stage.noise.start + stage.noise.ramp <= stage.epochs


def test_fields_are_checked_when_built() -> None:
    with pytest.raises(ValidationError):
        Preprocess(size=4, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ValidationError):
        Noise(0, 4, (0.1, 1.5), (0, 1))


def test_the_reference_recipe_has_the_reference_figures() -> None:
    paper = recipe("paper")
    assert [s.name for s in paper.stages] == ["sketch", "image", "text"]
    assert [s.epochs for s in paper.stages] == [8, 12, 8]
    assert {(s.weights.nce, s.weights.triplet, s.weights.category) for s in paper.stages} == {(0.8, 0.7, 0.2)}
    assert {(s.negatives, s.hard, s.sketches) for s in paper.stages} == {("stored", 6, "one")}
    assert (paper.batch, paper.optimiser.lr, paper.optimiser.weight_decay, paper.optimiser.clip) == (
        16,
        5e-5,
        1e-4,
        1,
    )
    assert (paper.margins.temperature, paper.margins.triplet, paper.margins.arc, paper.margins.arc_scale) == (
        0.07,
        0.2,
        0.2,
        32,
    )


def test_each_module_can_be_switched_off() -> None:
    for name in (
        "smoke",
        "demo",
        "stbir_c_small",
        "ours_small",
        "ours_brief",
        "paper",
        "paper_small",
        "paper_brief",
    ):
        assert {s.noise for s in recipe(f"{name}_without_curriculum").stages if s.name != "weigh"} == {None}
        assert not recipe(f"{name}_without_category").uses_classes
        assert recipe(f"{name}_with_clusters").clusters == 24
        once = [s for s in recipe(f"{name}_all_at_once").stages if not s.extra]
        assert [s.learns for s in once if s.name != "weigh"] == [("sketch", "photo", "text")]
        assert [s for s in once if s.name == "weigh"] == [s for s in recipe(name).stages if s.name == "weigh"]


def test_hubs_and_the_gate_can_be_switched_off_where_there_are_some() -> None:
    parent, plain = recipe("ours_small"), recipe("ours_small_without_gate")
    for name in ("ours_small", "ours_brief"):
        assert not any(s.hubness for s in recipe(f"{name}_without_hubness").stages)
    assert parent.stages[:-1] == plain.stages[:-1]
    for name in ("smoke_without_hubness", "paper_without_gate"):
        assert name not in names()
        with pytest.raises(InputError, match=f"{name}' would be '{name.split('_')[0]}' itself"):
            recipe(name)


@pytest.mark.parametrize("order", list(itertools.permutations(("sketch", "image", "text")))[1:])
def test_the_three_stages_come_in_every_order(order: tuple[str, ...]) -> None:
    parent = recipe("ours_small")
    permuted = recipe(f"ours_small_{'_'.join(order)}")
    three = [stage.name for stage in permuted.stages if stage.name in order]
    assert tuple(three) == order
    assert sorted(permuted.stages, key=str) == sorted(parent.stages, key=str)
    assert [s for s in permuted.stages if s.name not in order] == [
        s for s in parent.stages if s.name not in order
    ]
