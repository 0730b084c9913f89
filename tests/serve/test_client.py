"""Both clients and the shell command against the application as shipped."""

import httpx
import pytest

from stbir_client import Condition, ProblemError
from stbir_client.command import main
from tests.client.conftest import Ask, ask, one_authority
from tests.serve.conftest import Photos

__all__ = ["ask", "one_authority"]
STROKES = [[[0.1, 0.2], [0.8, 0.3], [0.5, 0.9]], [[0.4, 0.4]]]


def url(endpoint: httpx.Client) -> str:
    return str(endpoint.base_url)


@pytest.mark.parametrize("kind", ["sketch", "text", "both", "strokes"])
def test_every_kind_of_query_is_answered_as_without_the_client(
    endpoint: httpx.Client, ask: Ask, sketch: bytes, photos: Photos, kind: str
) -> None:
    drawn = {"sketch": sketch, "both": sketch, "strokes": STROKES}.get(kind)
    text = "a red disc" if kind in ("text", "both") else None
    answer = ask(url(endpoint), "search", drawn, text, k=len(photos.ids), sketch_weight=0.7)
    plain = {"k": len(photos.ids), "sketch_weight": 0.7, **({"text": text} if text else {})}
    sent = (
        {"json": {**plain, "sketch": STROKES}}
        if kind == "strokes"
        else {"data": plain, "files": {"sketch": ("s.png", drawn or b"")}}
    )
    expected = endpoint.post("/v1/search", **sent).raise_for_status().json()
    assert {hit.photo_id for hit in answer.hits} == set(photos.ids)
    scores = {hit["photo_id"]: hit["score"] for hit in expected["hits"]}
    assert {hit.photo_id: hit.score for hit in answer.hits} == pytest.approx(scores, abs=1e-6)
    assert (answer.checkpoint, answer.gallery_version) == (
        expected["checkpoint"],
        expected["gallery_version"],
    )


def test_thumbnails_and_info(endpoint: httpx.Client, ask: Ask, photos: Photos) -> None:
    info = ask(url(endpoint), "info")
    assert info.gallery is not None
    assert (info.gallery.count, info.gallery.categories) == (len(photos.ids), ("box", "disc"))
    assert {"sketch", "text"} <= set(info.queries)
    assert ask(url(endpoint), "thumbnail", photos.ids[3]) == photos.pictures[3]


def test_more_like_a_photo(endpoint: httpx.Client, ask: Ask, photos: Photos) -> None:
    answer = ask(url(endpoint), "search", photo_id=photos.ids[2], k=5)
    assert len(answer.hits) == 5
    assert photos.ids[2] not in {hit.photo_id for hit in answer.hits}


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ({"text": "red", "k": 101}, 422, "k"),
        ({"text": "red", "category": "no such"}, 422, "category"),
        ({"photo_id": "nobody"}, 404, "photo_id"),
        ({"sketch": b"no picture"}, 415, "sketch"),
    ],
)
def test_refusals_arrive_as_they_were_meant(
    endpoint: httpx.Client, ask: Ask, query: dict[str, object], status: int, says: str
) -> None:
    with pytest.raises(ProblemError) as error:
        ask(url(endpoint), "search", **query)
    assert error.value.status == status
    assert error.value.detail.startswith(f"{says}: ")
    assert error.value.request_id


def test_the_shell_command(
    endpoint: httpx.Client, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["search", "--url", url(endpoint), "--text", "a red disc", "-k", "3", "--category", "disc"]) == 0
    )
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["rank", "score", "category", "photo", "text"]
    assert [line.split()[2] for line in lines] == ["disc"] * 3
    told = dict(zip(photos.ids, photos.texts, strict=True))
    assert all((told[line.split()[3]] or "") == " ".join(line.split()[4:]) for line in lines)


def test_conditions_are_met(
    endpoint: httpx.Client, ask: Ask, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(url(endpoint), "info").gallery.columns["text"] == "string"
    where = [Condition("photo_id", "lt", "shape/10"), Condition("category", "in", ["disc"])]
    answer = ask(url(endpoint), "search", text="a red disc", k=24, where=where)
    assert {hit.photo_id for hit in answer.hits} == set(photos.ids[1:10:2])
    texts = dict(zip(photos.ids, photos.texts, strict=True))
    assert {hit.photo_id: hit.text for hit in answer.hits} == {
        name: texts[name] for name in photos.ids[1:10:2]
    }
    shell = ["search", "--url", url(endpoint), "--text", "a red disc", "-k", "24"]
    assert main([*shell, "--where", "photo_id < shape/10", "--where", "category in disc"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(answer.hits)
    assert main([*shell, "--where", "price<3"]) == 1
    assert "where.0.column: there is no 'price'; there is photo_id" in capsys.readouterr().err
