import json
from collections.abc import Callable, Iterator

import pytest
import torch

from ray_jobs.recipes import recipe
from stbir.augmentation.query_corruption import LEVELS, distorted
from stbir.data.schema import Row
from stbir.embedding.queries import KINDS, embed
from stbir.errors import InputError
from stbir.evaluation.evaluate import evaluate
from stbir.evaluation.robustness import TARGETS, Robustness, robustness
from stbir.model import builder
from stbir.model.retriever import Retriever
from tests.gallery.world import knowing, row, synthetic

SEED = 3
POOR = tuple(level for level, severity in LEVELS.items() if severity)


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    return builder.build(recipe("smoke").model, seed=0)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    some = synthetic(8)
    some[3] = {**some[3], "sketches": [], "sketch_count": 0}
    some[5] = {**some[5], "text": None}
    return some


@pytest.fixture(scope="module", autouse=True)
def in_parts() -> Iterator[None]:
    """A few rows at a time, so that parts are joined. The same ones everywhere: features are then equal to
    the last bit, and so are ranks."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("embedding.queries", "evaluation.robustness"):
            patch.setattr(f"stbir.{place}.BATCH", 3)
        yield


@pytest.fixture(scope="module")
def found(retriever: Retriever, rows: list[Row]) -> Robustness:
    return robustness(retriever, embed(retriever, rows), iter(rows), seed=SEED)


DISTORT: dict[str, Callable[[Row, Row], Row]] = {
    "sketch": lambda clean, poor: {**clean, "sketches": poor["sketches"]},
    "text": lambda clean, poor: {**clean, "text": poor["text"]},
    "both": lambda clean, poor: poor,
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("level", POOR)
def test_a_level_is_the_evaluation_of_distorted_rows(retriever, rows, found, target, level):
    poor = [DISTORT[target](row, distorted(row, LEVELS[level], SEED)) for row in rows]
    assert found.results[target][level] == evaluate(retriever, poor).results


def test_of_each_photo_and_a_weight_too(retriever, rows):
    found = robustness(retriever, embed(retriever, rows), rows, "per-photo", 0.2, SEED)
    poor = [distorted(row, 1.0, SEED) for row in rows]
    assert found.results["both"]["heavy"] == evaluate(retriever, poor, "per-photo", 0.2).results


def test_the_clean_level_is_the_evaluation(retriever, rows, found):
    clean = evaluate(retriever, rows).results
    assert all(found.results[target]["none"] == clean for target in TARGETS)


def test_what_is_not_distorted_stays(found):
    for level in POOR:
        assert found.results["sketch"][level]["text"] == found.results["sketch"]["none"]["text"]
        assert found.results["text"][level]["sketch"] == found.results["text"]["none"]["sketch"]
        assert found.results["both"][level]["sketch"] == found.results["sketch"][level]["sketch"]
        assert found.results["both"][level]["text"] == found.results["text"][level]["text"]


def test_the_seed_decides(retriever, rows, found):
    embedded = embed(retriever, rows)
    assert robustness(retriever, embedded, rows, seed=SEED) == found
    assert robustness(retriever, embedded, rows, seed=SEED + 1).results != found.results


def test_the_gallery_is_embedded_once(retriever, rows):
    embedded = embed(retriever, rows[:3])

    class Asleep(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            raise AssertionError("a photo was embedded again")

    no_photos = Retriever(retriever.sketch, Asleep(), retriever.text)
    assert set(robustness(no_photos, embedded, rows[:3]).results) == set(TARGETS)


def by_hand(*accuracies: float | None) -> Robustness:
    levels = {
        level: {kind: {"acc@1": value, "acc@5": value and value / 2} for kind in KINDS}
        for level, value in zip(LEVELS, accuracies, strict=True)
    }
    return Robustness(0, dict.fromkeys(TARGETS, levels))


def test_area_and_what_is_kept_by_hand():
    found = by_hand(80.0, 60.0, 40.0, 10.0)
    assert found.area("sketch", "text") == pytest.approx((80 / 2 + 60 + 40 + 10 / 2) / 3)
    assert found.area("both", "sketch+text", "acc@5") == pytest.approx((40 / 2 + 30 + 20 + 5 / 2) / 3)
    assert found.kept("text", "sketch") == [100, 75, 50, 12.5]
    assert by_hand(30.0, 30.0, 30.0, 30.0).area("text", "text") == pytest.approx(30)


def test_of_nothing_found_no_share_is_kept():
    assert by_hand(0.0, 0.0, 1.0, 0.0).kept("sketch", "sketch") is None
    assert by_hand(0.0, 0.0, 1.0, 0.0).area("sketch", "sketch") == pytest.approx(1 / 3)


def test_captions_alone_and_one_photo_alone():
    """The world's captions are numbers, in which no distortion finds anything to spoil."""
    rows = [row(0, colour, sketches=0) for colour in range(3)]
    found = robustness(knowing(), embed(knowing(), rows), rows)
    assert found.curve("text", "text") == [100, 100, 100, 100]
    assert (
        found.curve("both", "sketch") is found.area("both", "sketch") is found.kept("both", "sketch") is None
    )
    one = robustness(knowing(), embed(knowing(), rows[:1]), rows[:1])
    assert one.area("both", "text") == pytest.approx(100)


def test_the_report_says_it_in_plain_json(found):
    said = found.as_dict()
    assert json.loads(json.dumps(said)) == said
    assert (said["seed"], list(said["severity"])) == (SEED, ["none", "light", "medium", "heavy"])
    assert said["area"]["both"]["sketch+text"]["acc@5"] == found.area("both", "sketch+text", "acc@5")
    kept = said["kept"]["sketch"]["sketch"]
    assert kept == dict(zip(LEVELS, found.kept("sketch", "sketch") or [None] * 4, strict=True))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rows": []}, "rows: not those that were embedded"),
        ({"rows": [row(0, 1, sketches=0)]}, "rows: not those that were embedded"),
        ({"protocol": "per-pixel"}, "protocol: 'per-pixel'"),
        ({"sketch_weight": 2}, "sketch_weight: 2"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_bad_input_is_named(options, says):
    rows = [row(0, 0, sketches=0)]
    with pytest.raises(InputError, match=says):
        robustness(knowing(), embed(knowing(), rows), **{"rows": rows, **options})
