"""Fake of vLLM's engine with fixed answers. In a module of its own, since Ray workers import it."""

from typing import Any

import ray.data

from ray_jobs.captioning import vllm
from stbir.captioning.caption import caption_schema
from tests.ray_jobs.chat_server import CONTENTS, image_number

# Image number → answer of the first and of the second request.
ANSWERS = {1: ("prose", "good"), 2: ("cut", "cut"), 3: ("error", "error")}


def fake_engine(data: ray.data.Dataset) -> ray.data.Dataset:
    """Process a data set like vLLM's processor, with rows in one column and the fixed answers."""
    requests = data.map(lambda row: {"data": {**row, **vllm._to_request(row)}})
    return requests.materialize().map(_answer_row)


def _answer_row(columns: dict[str, Any]) -> dict[str, Any]:
    row = request = columns["data"]
    assert request["sampling_params"]["structured_outputs"]["json"].keys() == caption_schema().keys()
    assert [part.keys() for part in request["messages"][1]["content"]] == [
        {"type", "image_url"},
        {"type", "text"},
    ]
    answer = ANSWERS.get(image_number(request), ("good",))[len(request["messages"]) > 2]
    if answer == "error":
        return {**row, "__inference_error__": "ValueError: too long"}
    output = {
        "generated_text": CONTENTS[answer](image_number(request)),
        "num_input_tokens": 7,
        "num_generated_tokens": 3,
    }
    return {**vllm._from_response({**row, **output}), "__inference_error__": ""}
