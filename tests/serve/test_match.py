"""`min_match`: hits by the probability that they are the photo meant, over HTTP and from Python."""

import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI

import stbir
from stbir.embedding.match_probability import MatchCurve, store_match_curves
from stbir.errors import InputError
from tests.serve.local import application
from tests.serve.test_steering import STROKES, post

# Half of the scores of this gallery lie above 0.
CURVE = MatchCurve((-1.0, 1.0), (0.0, 1.0), 40, 20)


@pytest.fixture(scope="module")
def measured_uri(checkpoint_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint with curves for texts and for both."""
    uri = str(tmp_path_factory.mktemp("measured") / "checkpoint")
    shutil.copytree(Path(checkpoint_uri), uri)
    store_match_curves(uri, {"text": CURVE, "sketch+text": CURVE})
    return uri


@pytest.fixture(scope="module")
def measured(measured_uri: str, gallery_uri: str) -> FastAPI:
    return application(measured_uri, gallery_uri)


def test_hits_below_the_probability_are_left_out(
    measured: FastAPI, measured_uri: str, gallery_uri: str
) -> None:
    everything = post(measured, json={"text": "red", "k": 20}).json()["hits"]
    assert [hit["match"] for hit in everything] == pytest.approx(
        [(1 + hit["score"]) / 2 for hit in everything], abs=1e-3
    )
    middle = everything[len(everything) // 2]["match"]
    found = post(measured, json={"text": "red", "k": 20, "min_match": middle}).json()["hits"]
    assert found == [hit for hit in everything if hit["match"] >= middle]
    assert 0 < len(found) < len(everything)
    assert post(measured, json={"text": "red", "min_match": 1}).json()["hits"] == []
    gallery = stbir.open_gallery(gallery_uri, stbir.load(measured_uri, device="cpu"))
    from_python = gallery.search(text="red", k=20, min_match=middle)
    assert [hit.photo_id for hit in from_python] == [hit["photo_id"] for hit in found]
    assert [hit.match for hit in from_python] == pytest.approx([hit["match"] for hit in found], abs=1e-4)


@pytest.mark.parametrize(
    "query",
    [
        {"strokes": STROKES},  # not measured
        {"text": "red", "like": ["shape/03"]},
        {"text": "red", "without": ["blue"]},
        {"text": "red", "strokes": STROKES, "sketch_weight": 0.7},
        {"photo_id": "shape/03"},
    ],
)
def test_an_unknown_probability_is_null_and_refused(measured: FastAPI, query: dict[str, object]) -> None:
    assert {hit["match"] for hit in post(measured, json=query).json()["hits"]} == {None}
    refused = post(measured, json={**query, "min_match": 0.1})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("min_match: the probability of a match is unknown")


def test_a_checkpoint_without_curves_has_no_probability(
    app: FastAPI, checkpoint_uri: str, gallery_uri: str
) -> None:
    gallery = stbir.open_gallery(gallery_uri, stbir.load(checkpoint_uri, device="cpu"))
    assert {hit.match for hit in gallery.search(text="red")} == {None}
    with pytest.raises(InputError, match="min_match: the probability of a match is unknown"):
        gallery.search(text="red", min_match=0.5)
    refused = post(app, json={"text": "a", "min_match": 2})
    assert (refused.status_code, refused.json()["detail"][:10]) == (422, "min_match:")
