"""The endpoint over a gallery in Milvus answers as over the same gallery in Lance."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serve.rollout.release import resolve
from stbir.errors import InputError
from stbir.gallery.export_import import copy_table
from stbir.gallery.gallery import open_table
from stbir.gallery.publish import prepare, publish
from stbir.gallery.table import PUBLISHED
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from tests.serve.conftest import COUNT
from tests.serve.local import application


@pytest.fixture(scope="module")
def milvus_uri(checkpoint_uri: str, gallery_uri: str, milvus: str) -> str:
    source, target = Folder(gallery_uri), Folder(f"{milvus}/served")
    version = copy_table(open_table(source, PUBLISHED), source, target)
    candidate = prepare(target, version, checkpoint.read_digest(checkpoint_uri), None)
    publish(target, candidate, {"ok": COUNT})
    return target.uri


def responses(app: FastAPI, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [await client.request(method, path, **options) for method, path, options in requests]

    return asyncio.run(send())


def test_answers_are_those_over_lance(checkpoint_uri: str, gallery_uri: str, milvus_uri: str) -> None:
    where = [{"column": "text", "op": "ge", "value": "words of 03"}]
    searches: list[dict[str, Any]] = [
        {"text": "a box", "k": 5},
        {"text": "a disc", "k": 30, "category": "disc"},
        {"text": "a box", "k": 5, "where": where},
        {"text": "a box", "k": 5, "without": [{"text": "red"}], "group": True},
        {"photo_id": "shape/04", "k": 3},
        {"like": ["shape/04"], "unlike": ["shape/07"], "k": 4},
        {"text": "a box", "category": "nothing"},
    ]
    requests = [("POST", "/v1/search", {"json": each}) for each in searches]
    requests += [("GET", f"/v1/photos/shape%2F{n}", {}) for n in ("04", "99")]
    over_lance, over_milvus = (
        responses(application(checkpoint_uri, uri), requests) for uri in (gallery_uri, milvus_uri)
    )
    for request, expected, actual in zip(requests, over_lance, over_milvus, strict=True):
        assert actual.status_code == expected.status_code, (request, actual.text)
        if request[0] == "GET" and actual.status_code == 200:
            assert actual.content == expected.content
        elif actual.status_code == 200:
            pairs = zip(actual.json()["hits"], expected.json()["hits"], strict=True)
            assert all({**a, "score": pytest.approx(a["score"], abs=1e-4)} == b for a, b in pairs), request
    assert [each.status_code for each in over_milvus] == [200] * 6 + [422, 200, 404]


def test_information_readiness_and_release(checkpoint_uri: str, milvus_uri: str) -> None:
    app = application(checkpoint_uri, milvus_uri)
    info, ready = responses(app, [("GET", "/v1/info", {}), ("GET", "/readyz", {})])
    gallery = info.json()["gallery"]
    assert (gallery["name"], gallery["count"], gallery["categories"]) == ("served", COUNT, ["box", "disc"])
    assert len(gallery["examples"]) == 6
    assert ready.status_code == 200
    release = resolve({"checkpoint": checkpoint_uri, "gallery": milvus_uri})
    assert (release.gallery, release.version) == (milvus_uri, gallery["version"])


def test_release_without_a_gallery_or_of_another_checkpoint(checkpoint_uri: str, milvus: str) -> None:
    assert resolve({"checkpoint": checkpoint_uri, "gallery": f"{milvus}/nothing"}).version is None
    with pytest.raises(InputError, match="no Milvus server answers"):
        resolve({"checkpoint": checkpoint_uri, "gallery": "milvus://127.0.0.1:1/served"})
