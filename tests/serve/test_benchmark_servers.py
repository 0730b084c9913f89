"""The servers that `benchmarks/serve.py` compares the endpoint with: they find what the endpoint finds."""

import io

from fastapi import FastAPI

from benchmarks.endpoint import floor, one_by_one
from serve.http.api import create_app
from serve.settings import read_settings
from tests.serve.test_steering import post


def test_plain_servers_find_what_the_endpoint_finds(
    app: FastAPI, checkpoint_uri: str, gallery_uri: str, sketch: bytes
) -> None:
    fields, files = {"text": "a red disc", "k": "10"}, {"sketch": ("s.png", sketch)}
    uvicorn_app = create_app(floor.Searcher(checkpoint_uri, gallery_uri), read_settings().limits)
    ours, plain = (post(each, data=fields, files=files).json()["hits"] for each in (app, uvicorn_app))
    flask = one_by_one.create_app(checkpoint_uri, gallery_uri).test_client()
    form = {**fields, "sketch": (io.BytesIO(sketch), "s.png")}
    single = flask.post("/v1/search", data=form).get_json()["hits"]
    ids = [[hit["photo_id"] for hit in hits] for hits in (ours, plain, single)]
    assert ids == [ids[0]] * 3
    assert len(ids[0]) == 10
