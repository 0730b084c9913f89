import json
from collections.abc import Callable, Iterator

import pytest
import torch

from ray_jobs.recipes import recipe
from stbir.augmentation.query_corruption import LEVELS, corrupt_row
from stbir.data.schema import Row
from stbir.embedding.queries import QUERY_KINDS, SplitFeatures, embed
from stbir.errors import InputError
from stbir.evaluation.evaluate import evaluate
from stbir.evaluation.robustness import CORRUPTED_INPUTS, Robustness, evaluate_robustness
from stbir.model import builder
from stbir.model.retriever import Retriever
from tests.gallery.toy_dataset import row, synthetic_rows, toy_retriever

SEED = 3
CORRUPTED_LEVELS = tuple(level for level, severity in LEVELS.items() if severity)


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    return builder.build_retriever(recipe("smoke").model, seed=0)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    rows = synthetic_rows(8)
    rows[3] = {**rows[3], "sketches": [], "sketch_count": 0}
    rows[5] = {**rows[5], "text": None}
    return rows


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    """Several batches, of the same rows in both modules: their features are then equal to the bit."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("embedding.queries", "evaluation.robustness"):
            patch.setattr(f"stbir.{module}.BATCH", 3)
        yield


@pytest.fixture(scope="module")
def features(retriever: Retriever, rows: list[Row]) -> SplitFeatures:
    return embed(retriever, rows)


@pytest.fixture(scope="module")
def robustness(retriever: Retriever, features: SplitFeatures, rows: list[Row]) -> Robustness:
    return evaluate_robustness(retriever, features, iter(rows), seed=SEED)


CORRUPT: dict[str, Callable[[Row, Row], Row]] = {
    "sketch": lambda clean, corrupted: {**clean, "sketches": corrupted["sketches"]},
    "text": lambda clean, corrupted: {**clean, "text": corrupted["text"]},
    "both": lambda clean, corrupted: corrupted,
}


@pytest.mark.parametrize("corrupted", CORRUPTED_INPUTS)
@pytest.mark.parametrize("level", CORRUPTED_LEVELS)
def test_level_equals_the_evaluation_of_corrupted_rows(retriever, rows, robustness, corrupted, level):
    corrupted_rows = [CORRUPT[corrupted](row, corrupt_row(row, LEVELS[level], SEED)) for row in rows]
    assert robustness.results[corrupted][level] == evaluate(retriever, corrupted_rows).results


def test_protocol_and_sketch_weight_are_used(retriever, features, rows):
    robustness = evaluate_robustness(retriever, features, rows, "per-photo", 0.2, SEED)
    corrupted = [corrupt_row(row, 1.0, SEED) for row in rows]
    assert robustness.results["both"]["heavy"] == evaluate(retriever, corrupted, "per-photo", 0.2).results


def test_level_none_equals_the_clean_evaluation(retriever, rows, robustness):
    clean = evaluate(retriever, rows).results
    assert all(robustness.results[corrupted]["none"] == clean for corrupted in CORRUPTED_INPUTS)


def test_unaffected_queries_keep_their_results(robustness):
    for level in CORRUPTED_LEVELS:
        assert robustness.results["sketch"][level]["text"] == robustness.results["sketch"]["none"]["text"]
        assert robustness.results["text"][level]["sketch"] == robustness.results["text"]["none"]["sketch"]
        assert robustness.results["both"][level]["sketch"] == robustness.results["sketch"][level]["sketch"]
        assert robustness.results["both"][level]["text"] == robustness.results["text"][level]["text"]


def test_seed_determines_the_corruptions(retriever, features, rows, robustness):
    assert evaluate_robustness(retriever, features, rows, seed=SEED) == robustness
    assert evaluate_robustness(retriever, features, rows, seed=SEED + 1).results != robustness.results


def test_photos_are_not_embedded_twice(retriever, rows):
    features = embed(retriever, rows[:3])

    class FailingEncoder(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            raise AssertionError("a photo was embedded again")

    no_photos = Retriever(retriever.sketch, FailingEncoder(), retriever.text)
    assert set(evaluate_robustness(no_photos, features, rows[:3]).results) == set(CORRUPTED_INPUTS)


def robustness_of(*accuracies: float | None) -> Robustness:
    levels = {
        level: {kind: {"acc@1": value, "acc@5": value and value / 2} for kind in QUERY_KINDS}
        for level, value in zip(LEVELS, accuracies, strict=True)
    }
    return Robustness(0, dict.fromkeys(CORRUPTED_INPUTS, levels))


def test_auc_and_relative_accuracy():
    robustness = robustness_of(80.0, 60.0, 40.0, 10.0)
    assert robustness.auc("sketch", "text") == pytest.approx((80 / 2 + 60 + 40 + 10 / 2) / 3)
    assert robustness.auc("both", "sketch+text", "acc@5") == pytest.approx((40 / 2 + 30 + 20 + 5 / 2) / 3)
    assert robustness.relative("text", "sketch") == [100, 75, 50, 12.5]
    assert robustness_of(30.0, 30.0, 30.0, 30.0).auc("text", "text") == pytest.approx(30)


def test_relative_accuracy_of_zero_is_none():
    assert robustness_of(0.0, 0.0, 1.0, 0.0).relative("sketch", "sketch") is None
    assert robustness_of(0.0, 0.0, 1.0, 0.0).auc("sketch", "sketch") == pytest.approx(1 / 3)


def test_rows_without_sketches_and_a_single_row():
    """The captions of these rows are numbers, which text corruption does not change."""
    rows = [row(0, colour, sketches=0) for colour in range(3)]
    robustness = evaluate_robustness(toy_retriever(), embed(toy_retriever(), rows), rows)
    assert robustness.curve("text", "text") == [100, 100, 100, 100]
    assert (
        robustness.curve("both", "sketch")
        is robustness.auc("both", "sketch")
        is robustness.relative("both", "sketch")
        is None
    )
    single = evaluate_robustness(toy_retriever(), embed(toy_retriever(), rows[:1]), rows[:1])
    assert single.auc("both", "text") == pytest.approx(100)


def test_as_dict_is_json(robustness):
    content = robustness.as_dict()
    assert json.loads(json.dumps(content)) == content
    assert (content["seed"], list(content["severity"])) == (SEED, ["none", "light", "medium", "heavy"])
    assert content["area"]["both"]["sketch+text"]["acc@5"] == robustness.auc("both", "sketch+text", "acc@5")
    relative = content["kept"]["sketch"]["sketch"]
    assert relative == dict(zip(LEVELS, robustness.relative("sketch", "sketch") or [None] * 4, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": []}, "rows: not those that were embedded"),
        ({"rows": [row(0, 1, sketches=0)]}, "rows: not those that were embedded"),
        ({"protocol": "per-pixel"}, "protocol: 'per-pixel'"),
        ({"sketch_weight": 2}, "sketch_weight: 2"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_invalid_input_is_refused(options, message):
    rows = [row(0, 0, sketches=0)]
    with pytest.raises(InputError, match=message):
        evaluate_robustness(toy_retriever(), embed(toy_retriever(), rows), **{"rows": rows, **options})
