"""What stands in for vLLM's engine: a data set through it, answers from a table. Workers import this file."""

from typing import Any

import ray.data

from ray_jobs.captioning import vllm
from stbir.captioning.caption import schema
from tests.ray_jobs.chat_server import CONTENTS, picture_of

# What the engine says of pictures, at first and when it is asked again.
SAYS = {1: ("prose", "good"), 2: ("cut", "cut"), 3: ("error", "error")}


def answering(data: ray.data.Dataset) -> ray.data.Dataset:
    """What vLLM's processor does to a data set, with answers from a table: rows travel in one column."""
    requests = data.map(lambda row: {"data": {**row, **vllm._request(row)}})
    return requests.materialize().map(_said)


def _said(columns: dict[str, Any]) -> dict[str, Any]:
    row = request = columns["data"]
    assert request["sampling_params"]["structured_outputs"]["json"].keys() == schema().keys()
    assert [part.keys() for part in request["messages"][1]["content"]] == [
        {"type", "image_url"},
        {"type", "text"},
    ]
    says = SAYS.get(picture_of(request), ("good",))[len(request["messages"]) > 2]
    if says == "error":
        return {**row, "__inference_error__": "ValueError: too long"}
    spoken = {
        "generated_text": CONTENTS[says](picture_of(request)),
        "num_input_tokens": 7,
        "num_generated_tokens": 3,
    }
    return {**vllm._answer({**row, **spoken}), "__inference_error__": ""}
