"""Captions from a model that vLLM runs in the cluster, through `ray.data.llm` (extra `caption`)."""

import contextlib
import importlib.util
import json
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import ray.data

from ray_jobs.captioning.chat import MAX_ANSWER_TOKENS
from ray_jobs.captioning.ledger import CaptionTarget, Outcome
from ray_jobs.captioning.tasks import Job, next_messages, outcome_of, read_photos, read_targets
from stbir.captioning.answer import MAX_ANSWERS
from stbir.captioning.answer_store import Usage
from stbir.captioning.caption import caption_schema
from stbir.captioning.prompt_image import encode_data_uri
from stbir.errors import InputError

# Maps a data set of requests to one with the engine's output columns.
Engine = Callable[[ray.data.Dataset], ray.data.Dataset]
_ERROR = "__inference_error__"
_PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size")


@dataclass(frozen=True)
class EngineConfig:
    """vLLM engines in the cluster. `options` are vLLM's engine arguments.

    Raises InputError if a parallel size in `options` is not a number of GPUs.
    """

    model: str
    engine_count: int
    batch_size: int
    options: dict[str, Any]

    def __post_init__(self) -> None:
        for name in _PARALLEL_SIZES:
            if type(size := self.options.get(name, 1)) is not int or size < 1:
                raise InputError(f"--engine: {name}={size} is not a number of GPUs; give 1 or more")

    @property
    def gpus(self) -> int:
        """GPUs per engine."""
        return math.prod(self.options.get(name, 1) for name in _PARALLEL_SIZES)


def check_installed() -> None:
    """Raises InputError if the extra `caption` is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "--vllm: vLLM is not installed; on every node: uv pip install '.[caption]' in the checkout"
            " (docs/captions.md), or give --endpoint URL"
        )


def build_engine(config: EngineConfig) -> Engine:
    """Build Ray Data's processor, which runs the model on GPU workers."""
    from ray.data.llm import build_processor

    return build_processor(  # type: ignore[no-any-return]
        processor_config(config), preprocess=_to_request, postprocess=_from_response
    )


def processor_config(config: EngineConfig) -> Any:
    """Configure the processor: vLLM decodes the images; a failed row does not end the job."""
    from ray.data.llm import PrepareMultimodalStageConfig, vLLMEngineProcessorConfig

    return vLLMEngineProcessorConfig(
        model_source=config.model,
        engine_kwargs={"limit_mm_per_prompt": {"image": 1}, **config.options},
        batch_size=config.batch_size,
        concurrency=(1, config.engine_count),
        prepare_multimodal_stage=PrepareMultimodalStageConfig(chat_template_content_format="openai"),
        should_continue_on_error=True,
    )


def _to_request(row: dict[str, Any]) -> dict[str, Any]:
    """Columns that the engine reads."""
    structured = {"structured_outputs": {"json": caption_schema()}}
    parameters = {"temperature": 0, "max_tokens": MAX_ANSWER_TOKENS, **structured}
    return {"messages": json.loads(row["messages_json"]), "sampling_params": parameters}


def _from_response(row: dict[str, Any]) -> dict[str, Any]:
    """Columns that remain after the engine."""
    return {
        "key": row["key"],
        "text": row["generated_text"],
        "tokens_in": row["num_input_tokens"],
        "tokens_out": row["num_generated_tokens"],
    }


def caption_targets(
    job: Job, engine: Engine, targets: list[CaptionTarget]
) -> Generator[tuple[dict[str, Outcome], Usage]]:
    """Caption photos in up to MAX_ANSWERS rounds. Yields outcomes by content key, and the usage."""
    pending = {target.key: target for target in targets}
    for _ in range(MAX_ANSWERS):
        for key, outcome, usage in _run_round(job, engine, list(pending.values())) if pending else ():
            if outcome is not None:
                del pending[key]
            yield ({} if outcome is None else {key: outcome}), usage
    for key, photo in read_targets(job.shards, pending.values()):
        yield {key: _missing_outcome(photo, job.prompt.max_side)}, Usage()


def _run_round(
    job: Job, engine: Engine, targets: list[CaptionTarget]
) -> Iterator[tuple[str, Outcome | None, Usage]]:
    """Send one request per photo. Tasks store the answers, so a kill loses only requests in the engine."""
    requests = ray.data.from_items(list(_group_targets(targets))).flat_map(
        _build_requests, fn_kwargs={"job": job}
    )
    for row in engine(requests).map(_store_answer, fn_kwargs={"job": job}).iter_rows():
        yield row["key"], _outcome(job, row), Usage(row["calls"], row["tokens_in"], row["tokens_out"])


def _group_targets(targets: list[CaptionTarget]) -> Iterator[dict[str, Any]]:
    for (file, group), members in groupby(targets, key=lambda target: (target.file, target.group)):
        rows, keys = zip(*((target.row, target.key) for target in members), strict=True)
        yield {"file": file, "group": group, "rows": list(rows), "keys": list(keys)}


def _build_requests(location: dict[str, Any], job: Job) -> Iterator[dict[str, str]]:
    """Build the requests of a row group, except for photos that do not decode."""
    photos = read_photos(job.shards, location["file"], location["group"])
    for row, key in zip(location["rows"], location["keys"], strict=True):
        with contextlib.suppress(InputError):
            image_uri = encode_data_uri(photos[row], job.prompt.max_side)
            messages = next_messages(job.prompt, image_uri, job.store.get(key))
            yield {"key": key, "messages_json": json.dumps(messages)}


def _store_answer(row: dict[str, Any], job: Job) -> dict[str, Any]:
    usage, error = Usage(), row[_ERROR] or ""
    if not error:
        usage = Usage(1, int(row["tokens_in"]), int(row["tokens_out"]))
        job.store.put(row["key"], job.store.get(row["key"]).append(row["text"], usage))
    tokens = {"tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
    return {"key": row["key"], "error": error, "calls": usage.calls, **tokens}


def _outcome(job: Job, row: dict[str, Any]) -> Outcome | None:
    if row["error"]:
        return Outcome(None, "no answer", row["error"], is_retryable=True)
    return outcome_of(job.store.get(row["key"]), job.prompt.max_word_count)


def _missing_outcome(photo: bytes, max_side: int) -> Outcome:
    """The outcome of a photo for which the engine returned no row."""
    try:
        encode_data_uri(photo, max_side)
    except InputError as error:
        return Outcome(None, "photo does not decode", str(error))
    return Outcome(None, "no answer", "the engine returned no row", is_retryable=True)
