import numpy as np
import pytest
import torch

from ray_jobs.recipes import recipe
from stbir.data.schema import Row
from stbir.embedding.queries import NO_SKETCH
from stbir.errors import InputError
from stbir.evaluation.evaluate import Evaluation, evaluate
from stbir.images import decode_photo, decode_sketch
from stbir.model import builder
from stbir.model.retriever import Retriever
from tests.gallery.toy_dataset import NUM_KINDS, png, row, synthetic_rows, toy_retriever

WORLD = [row(shape, colour) for shape in range(4) for colour in range(3)]


def ranks(evaluation: Evaluation) -> dict[str, list[int]]:
    return {kind: ranking.ranks_Q.tolist() for kind, ranking in evaluation.rankings.items()}


@pytest.mark.parametrize("protocol", ["per-sketch", "per-photo"])
def test_sketch_and_text_together_rank_the_target_first(protocol):
    evaluation = evaluate(toy_retriever(), WORLD, protocol)
    assert ranks(evaluation) == {"sketch": [3] * 12, "text": [4] * 12, "sketch+text": [1] * 12}
    assert evaluation.results["sketch+text"]["acc@1"] == 100
    assert evaluation.gallery_size == 12


def test_top_k_starts_with_the_best_photo():
    top = evaluate(toy_retriever(), WORLD).rankings["sketch+text"].top_QK
    assert top.shape == (12, 5)
    assert top[:, 0].tolist() == list(range(12))


def test_protocol_determines_the_sketch_queries():
    rows = [row(0, 0, sketches=3), row(1, 0, sketches=1), row(2, 0, sketches=2)]
    sketches = evaluate(toy_retriever(), rows, "per-sketch").rankings["sketch+text"]
    assert sketches.target_Q.tolist() == [0, 0, 0, 1, 2, 2]
    assert sketches.sketch_Q.tolist() == [0, 1, 2, 0, 0, 1]
    photos = evaluate(toy_retriever(), rows, "per-photo").rankings["sketch+text"]
    assert photos.target_Q.tolist() == [0, 1, 2]
    assert photos.sketch_Q.tolist() == [NO_SKETCH] * 3


def test_each_caption_is_one_query():
    rows = [row(0, 0, sketches=3), row(1, 1, sketches=2)]
    assert evaluate(toy_retriever(), rows).results["text"]["n"] == 2


def test_per_photo_averages_the_sketches():
    """Two of three sketches show the right shape: the third one fails, their mean does not."""
    mixed = row(0, 0)
    mixed["sketches"] = [png(1, 1), png(0, 0), png(0, 0)]
    rows = [mixed, row(1, 0), row(2, 0)]
    assert ranks(evaluate(toy_retriever(), rows, "per-sketch"))["sketch"][:3] == [3, 1, 1]
    assert ranks(evaluate(toy_retriever(), rows, "per-photo"))["sketch"][0] == 1


def test_photos_without_sketch_or_caption_are_counted_and_stay_in_the_gallery():
    rows = [row(0, 0), row(1, 1, sketches=0), row(2, 2, text=False)]
    evaluation = evaluate(toy_retriever(), rows)
    assert evaluation.gallery_size == 3
    assert evaluation.num_skipped == {"sketch": 1, "text": 1, "sketch+text": 2}
    assert {kind: result["n"] for kind, result in evaluation.results.items()} == {
        "sketch": 2,
        "text": 2,
        "sketch+text": 1,
    }


def test_rows_without_sketches_give_text_queries():
    evaluation = evaluate(toy_retriever(), [row(0, i, sketches=0) for i in range(3)])
    assert ranks(evaluation) == {"sketch": [], "text": [1, 1, 1], "sketch+text": []}
    assert evaluation.results["sketch"]["acc@1"] is None


def test_sketch_weight_decides_between_sketch_and_text():
    wrong_caption = row(0, 0)
    wrong_caption["text"] = "1"
    rows = [wrong_caption, row(2, 1)]
    assert ranks(evaluate(toy_retriever(), rows, sketch_weight=0.9))["sketch+text"][0] == 1
    assert ranks(evaluate(toy_retriever(), rows, sketch_weight=0.1))["sketch+text"][0] == 2


def test_by_category_ranks_against_the_full_gallery():
    rows = [row(0, 0, category="a"), row(0, 1, category="b"), row(1, 1, category="b")]
    results = evaluate(toy_retriever(), rows).by_category
    assert [results["a"]["sketch"]["n"], results["b"]["sketch"]["n"]] == [1, 2]
    assert results["a"]["sketch"]["median_rank"] == 2  # ties with a photo of category b
    assert results["b"]["sketch"]["median_rank"] == 1.5


def test_rows_are_read_in_batches():
    rows = [row(i % NUM_KINDS, i // NUM_KINDS % NUM_KINDS) for i in range(150)]
    target = evaluate(toy_retriever(), iter(rows)).rankings["sketch+text"].target_Q
    assert target.tolist() == list(range(150))


def test_train_and_eval_modes_are_restored():
    retriever = toy_retriever()
    retriever.train()
    retriever.photo.eval()
    before = [module.training for module in retriever.modules()]
    assert ranks(evaluate(retriever, WORLD))["sketch+text"] == [1] * 12  # dropout was off
    assert [module.training for module in retriever.modules()] == before


def test_ranks_equal_a_loop_with_encode_query():
    retriever = builder.build_retriever(recipe("smoke").model, seed=0)
    rows = synthetic_rows(8)
    assert ranks(evaluate(retriever, rows, sketch_weight=0.3)) == slow_ranks(retriever, rows, 0.3)


@torch.inference_mode()
def slow_ranks(retriever: Retriever, rows: list[Row], weight: float) -> dict[str, list[int]]:
    size = retriever.photo.preprocess.size
    photos = [retriever.encode_photo(torch.tensor(decode_photo(r["photo"], size))[None])[0] for r in rows]
    ranks: dict[str, list[int]] = {"sketch": [], "text": [], "sketch+text": []}
    for target, r in enumerate(rows):
        tokens = retriever.text.tokenize([r["text"] or ""])
        ranks["text"].append(slow_rank(retriever.encode_query(None, tokens)[0], photos, target))
        for sketch in r["sketches"]:
            pixels = torch.tensor(decode_sketch(sketch, size))[None]
            ranks["sketch"].append(slow_rank(retriever.encode_query(pixels)[0], photos, target))
            both = retriever.encode_query(pixels, tokens, weight)[0]
            ranks["sketch+text"].append(slow_rank(both, photos, target))
    return ranks


def slow_rank(query: torch.Tensor, photos: list[torch.Tensor], target: int) -> int:
    scores = [round(float(query @ photo), 6) for photo in photos]
    return 1 + sum(score >= scores[target] for i, score in enumerate(scores) if i != target)


def test_a_constant_model_ranks_last():
    class Constant(torch.nn.Module):
        dim = 16
        preprocess = toy_retriever().photo.preprocess

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("vector", torch.nn.functional.normalize(torch.arange(1.0, 17.0), dim=0))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            jitter = (
                3e-8 * (torch.arange(len(pixels)) % 3)[:, None]
            )  # as a different order of additions gives
            return self.vector + jitter

    constant = ranks(evaluate(Retriever(Constant(), Constant(), toy_retriever().text), WORLD))
    assert constant["sketch"] == [12] * 12


@pytest.mark.parametrize(
    ("rows", "protocol", "message"),
    [
        ([], "per-sketch", "rows: no photo"),
        (WORLD, "per-pixel", "protocol: 'per-pixel'"),
        ([{**row(0, 0), "photo": b"no picture"}], "per-sketch", "photo: not a readable image"),
    ],
)
def test_invalid_input_is_refused(rows, protocol, message):
    with pytest.raises(InputError, match=message):
        evaluate(toy_retriever(), rows, protocol)


def test_results_are_json_values():
    import json

    content = evaluate(toy_retriever(), WORLD).as_dict()
    assert json.loads(json.dumps(content)) == content
    assert np.isfinite(content["results"]["sketch"]["map"])
