import numpy as np
import pytest
import torch

from ray_jobs.recipes import recipe
from stbir.data.schema import Row
from stbir.embedding.queries import NO_SKETCH
from stbir.errors import InputError
from stbir.evaluation.evaluate import Evaluation, evaluate
from stbir.images import photo_pixels, sketch_pixels
from stbir.model import builder
from stbir.model.retriever import Retriever
from tests.gallery.world import KINDS, knowing, png, row, synthetic

WORLD = [row(shape, colour) for shape in range(4) for colour in range(3)]


def ranks(evaluation: Evaluation) -> dict[str, list[int]]:
    return {kind: ranking.ranks_Q.tolist() for kind, ranking in evaluation.rankings.items()}


@pytest.mark.parametrize("protocol", ["per-sketch", "per-photo"])
def test_neither_alone_finds_what_both_find(protocol):
    evaluation = evaluate(knowing(), WORLD, protocol)
    assert ranks(evaluation) == {"sketch": [3] * 12, "text": [4] * 12, "sketch+text": [1] * 12}
    assert evaluation.results["sketch+text"]["acc@1"] == 100
    assert evaluation.gallery_size == 12


def test_the_first_found_are_the_best():
    top = evaluate(knowing(), WORLD).rankings["sketch+text"].top_QK
    assert top.shape == (12, 5)
    assert top[:, 0].tolist() == list(range(12))


def test_each_sketch_asks_per_sketch_and_all_together_per_photo():
    rows = [row(0, 0, sketches=3), row(1, 0, sketches=1), row(2, 0, sketches=2)]
    sketches = evaluate(knowing(), rows, "per-sketch").rankings["sketch+text"]
    assert sketches.right_Q.tolist() == [0, 0, 0, 1, 2, 2]
    assert sketches.sketch_Q.tolist() == [0, 1, 2, 0, 0, 1]
    photos = evaluate(knowing(), rows, "per-photo").rankings["sketch+text"]
    assert photos.right_Q.tolist() == [0, 1, 2]
    assert photos.sketch_Q.tolist() == [NO_SKETCH] * 3


def test_captions_ask_once_a_photo():
    rows = [row(0, 0, sketches=3), row(1, 1, sketches=2)]
    assert evaluate(knowing(), rows).results["text"]["n"] == 2


def test_per_photo_averages_the_sketches():
    """Two of three sketches show the right shape: alone the third fails, the mean does not."""
    odd = row(0, 0)
    odd["sketches"] = [png(1, 1), png(0, 0), png(0, 0)]
    rows = [odd, row(1, 0), row(2, 0)]
    assert ranks(evaluate(knowing(), rows, "per-sketch"))["sketch"][:3] == [3, 1, 1]
    assert ranks(evaluate(knowing(), rows, "per-photo"))["sketch"][0] == 1


def test_what_cannot_be_asked_is_counted_and_stays_in_the_gallery():
    rows = [row(0, 0), row(1, 1, sketches=0), row(2, 2, text=False)]
    evaluation = evaluate(knowing(), rows)
    assert evaluation.gallery_size == 3
    assert evaluation.not_asked == {"sketch": 1, "text": 1, "sketch+text": 2}
    assert {kind: result["n"] for kind, result in evaluation.results.items()} == {
        "sketch": 2,
        "text": 2,
        "sketch+text": 1,
    }


def test_captions_alone_are_enough():
    evaluation = evaluate(knowing(), [row(0, i, sketches=0) for i in range(3)])
    assert ranks(evaluation) == {"sketch": [], "text": [1, 1, 1], "sketch+text": []}
    assert evaluation.results["sketch"]["acc@1"] is None


def test_the_weight_decides_between_sketch_and_text():
    wrong_words = row(0, 0)
    wrong_words["text"] = "1"
    rows = [wrong_words, row(2, 1)]
    assert ranks(evaluate(knowing(), rows, sketch_weight=0.9))["sketch+text"][0] == 1
    assert ranks(evaluate(knowing(), rows, sketch_weight=0.1))["sketch+text"][0] == 2


def test_by_category_splits_the_queries_not_the_gallery():
    rows = [row(0, 0, category="a"), row(0, 1, category="b"), row(1, 1, category="b")]
    found = evaluate(knowing(), rows).by_category
    assert [found["a"]["sketch"]["n"], found["b"]["sketch"]["n"]] == [1, 2]
    assert found["a"]["sketch"]["median_rank"] == 2  # the photo of category b with its shape counts
    assert found["b"]["sketch"]["median_rank"] == 1.5


def test_many_rows_are_read_in_parts():
    rows = [row(i % KINDS, i // KINDS % KINDS) for i in range(150)]
    right = evaluate(knowing(), iter(rows)).rankings["sketch+text"].right_Q
    assert right.tolist() == list(range(150))


def test_the_retriever_comes_back_as_it_was():
    retriever = knowing()
    retriever.train()
    retriever.photo.eval()
    before = [module.training for module in retriever.modules()]
    assert ranks(evaluate(retriever, WORLD))["sketch+text"] == [1] * 12  # dropout was off
    assert [module.training for module in retriever.modules()] == before


def test_against_loops_with_a_real_model():
    retriever = builder.build(recipe("smoke").model, seed=0)
    rows = synthetic(8)
    got = ranks(evaluate(retriever, rows, sketch_weight=0.3))
    assert got == slow_ranks(retriever, rows, 0.3)


@torch.inference_mode()
def slow_ranks(retriever: Retriever, rows: list[Row], weight: float) -> dict[str, list[int]]:
    size = retriever.photo.preprocess.size
    photos = [retriever.encode_photo(torch.tensor(photo_pixels(r["photo"], size))[None])[0] for r in rows]
    found: dict[str, list[int]] = {"sketch": [], "text": [], "sketch+text": []}
    for right, r in enumerate(rows):
        tokens = retriever.text.tokenize([r["text"] or ""])
        found["text"].append(slow_rank(retriever.encode_query(None, tokens)[0], photos, right))
        for sketch in r["sketches"]:
            pixels = torch.tensor(sketch_pixels(sketch, size))[None]
            found["sketch"].append(slow_rank(retriever.encode_query(pixels)[0], photos, right))
            both = retriever.encode_query(pixels, tokens, weight)[0]
            found["sketch+text"].append(slow_rank(both, photos, right))
    return found


def slow_rank(query: torch.Tensor, photos: list[torch.Tensor], right: int) -> int:
    scores = [round(float(query @ photo), 6) for photo in photos]
    return 1 + sum(score >= scores[right] for i, score in enumerate(scores) if i != right)


def test_a_model_that_says_the_same_of_all_is_last_everywhere():
    class Blind(torch.nn.Module):
        dim = 16
        preprocess = knowing().photo.preprocess

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("same", torch.nn.functional.normalize(torch.arange(1.0, 17.0), dim=0))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            jitter = 3e-8 * (torch.arange(len(pixels)) % 3)[:, None]  # as another order of adding gives
            return self.same + jitter

    got = ranks(evaluate(Retriever(Blind(), Blind(), knowing().text), WORLD))
    assert got["sketch"] == [12] * 12


@pytest.mark.parametrize(
    ("rows", "protocol", "says"),
    [
        ([], "per-sketch", "rows: no photo"),
        (WORLD, "per-pixel", "protocol: 'per-pixel'"),
        ([{**row(0, 0), "photo": b"no picture"}], "per-sketch", "photo: not a readable picture"),
    ],
)
def test_bad_input_is_named(rows, protocol, says):
    with pytest.raises(InputError, match=says):
        evaluate(knowing(), rows, protocol)


def test_results_are_plain_json_values():
    import json

    found = evaluate(knowing(), WORLD).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert np.isfinite(found["results"]["sketch"]["map"])
