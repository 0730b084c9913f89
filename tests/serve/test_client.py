"""Both clients and the command against the endpoint with default settings."""

import importlib
from pathlib import Path

import httpx
import numpy as np
import pytest

import stbir
from stbir_client import Condition, ProblemError
from stbir_client.command import main
from tests.client.conftest import CallClient, call_client, single_ca
from tests.serve.conftest import Photos

__all__ = ["call_client", "single_ca"]
STROKES = [[[0.1, 0.2], [0.8, 0.3], [0.5, 0.9]], [[0.4, 0.4]]]


@pytest.fixture
def url(endpoint: httpx.Client) -> str:
    return str(endpoint.base_url)


@pytest.mark.parametrize("kind", ["sketch", "text", "both", "strokes"])
def test_client_returns_the_hits_of_a_plain_request(
    endpoint: httpx.Client, url: str, call_client: CallClient, sketch: bytes, photos: Photos, kind: str
) -> None:
    drawing = {"sketch": sketch, "both": sketch, "strokes": STROKES}.get(kind)
    text = "a red disc" if kind in ("text", "both") else None
    result = call_client(url, "search", drawing, text, k=len(photos.ids), sketch_weight=0.7)
    fields = {"k": len(photos.ids), "sketch_weight": 0.7, **({"text": text} if text else {})}
    request = (
        {"json": {**fields, "sketch": STROKES}}
        if kind == "strokes"
        else {"data": fields, "files": {"sketch": ("s.png", drawing or b"")}}
    )
    expected = endpoint.post("/v1/search", **request).raise_for_status().json()
    assert {hit.photo_id for hit in result.hits} == set(photos.ids)
    scores = {hit["photo_id"]: hit["score"] for hit in expected["hits"]}
    assert {hit.photo_id: hit.score for hit in result.hits} == pytest.approx(scores, abs=1e-6)
    assert result.checkpoint == expected["checkpoint"]
    assert result.gallery_version == expected["gallery_version"]


def test_an_explanation_is_that_of_the_python_interface(
    url: str, call_client: CallClient, sketch: bytes, checkpoint_uri: str, gallery_uri: str
) -> None:
    gallery = stbir.open_gallery(gallery_uri, stbir.load(checkpoint_uri, device="cpu"))
    expected = gallery.explain("shape/07", sketch, "a red disc", sketch_weight=0.7)
    result = call_client(url, "explain", "shape/07", sketch, "a red disc", sketch_weight=0.7)
    assert result.score == pytest.approx(expected.score, abs=1e-5)
    assert dict(result.words) == pytest.approx(dict(expected.words), abs=1e-5)
    np.testing.assert_allclose(result.cells, expected.cells, atol=1e-5)
    with pytest.raises(ProblemError, match="hit: 'nobody' is not in the gallery") as error:
        call_client(url, "explain", "nobody", sketch)
    assert error.value.status == 404


def test_thumbnails_and_info(url: str, call_client: CallClient, photos: Photos) -> None:
    info = call_client(url, "info")
    assert info.gallery is not None
    assert (info.gallery.count, info.gallery.categories) == (len(photos.ids), ("box", "disc"))
    assert {"sketch", "text"} <= set(info.queries)
    assert call_client(url, "thumbnail", photos.ids[3]) == photos.images[3]


def test_query_by_photo_id_excludes_the_photo(url: str, call_client: CallClient, photos: Photos) -> None:
    result = call_client(url, "search", photo_id=photos.ids[2], k=5)
    assert len(result.hits) == 5
    assert photos.ids[2] not in {hit.photo_id for hit in result.hits}


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"text": "red", "k": 101}, 422, "k"),
        ({"text": "red", "category": "no such"}, 422, "category"),
        ({"photo_id": "nobody"}, 404, "photo_id"),
        ({"sketch": b"not an image"}, 415, "sketch"),
    ],
)
def test_problem_is_raised_with_status_field_and_request_id(
    url: str, call_client: CallClient, query: dict[str, object], status: int, field: str
) -> None:
    with pytest.raises(ProblemError) as error:
        call_client(url, "search", **query)
    assert error.value.status == status
    assert error.value.detail.startswith(f"{field}: ")
    assert error.value.request_id


def test_search_command_prints_a_table(url: str, photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--url", url, "--text", "a red disc", "-k", "3", "--category", "disc"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["rank", "score", "category", "photo", "text"]
    rows = [line.split() for line in lines]
    assert [row[2] for row in rows] == ["disc"] * 3
    texts = dict(zip(photos.ids, photos.texts, strict=True))
    assert all((texts[row[3]] or "") == " ".join(row[4:]) for row in rows)


def test_hits_meet_the_filters(
    url: str, call_client: CallClient, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_client(url, "info").gallery.columns["text"] == "string"
    where = [Condition("photo_id", "lt", "shape/10"), Condition("category", "in", ["disc"])]
    result = call_client(url, "search", text="a red disc", k=24, where=where)
    texts = dict(zip(photos.ids, photos.texts, strict=True))
    assert {hit.photo_id: hit.text for hit in result.hits} == {id_: texts[id_] for id_ in photos.ids[1:10:2]}
    command = ["search", "--url", url, "--text", "a red disc", "-k", "24"]
    assert main([*command, "--where", "photo_id < shape/10", "--where", "category in disc"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(result.hits)
    assert main([*command, "--where", "price<3"]) == 1
    assert "where.0.column: no column 'price'; available: photo_id" in capsys.readouterr().err


def test_example_of_a_plain_http_query(
    endpoint: httpx.Client, url: str, sketch: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.png").write_bytes(sketch)
    importlib.import_module("examples.http_query").main(
        url.rstrip("/"), str(tmp_path / "s.png"), "a red disc"
    )
    data, files = {"text": "a red disc", "k": 5}, {"sketch": sketch}
    expected = endpoint.post("/v1/search", data=data, files=files).raise_for_status().json()
    ids = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert ids == [hit["photo_id"] for hit in expected["hits"]]
