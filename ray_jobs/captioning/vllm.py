"""Asking a model that vLLM runs in the cluster itself, through Ray Data's own processor (extra `caption`)."""

import contextlib
import importlib.util
import json
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import ray.data

from ray_jobs.captioning.chat import MOST_TOKENS
from ray_jobs.captioning.ledger import Outcome, Wanted
from ray_jobs.captioning.tasks import Job, kept, outcome_of, pictures_of, question, read_pictures
from stbir.captioning.answer import MOST_ANSWERS
from stbir.captioning.answer_store import Usage
from stbir.captioning.caption import schema
from stbir.captioning.prompt import messages
from stbir.captioning.prompt_image import sent
from stbir.errors import InputError

# A data set in, the same with the engine's columns out.
Engine = Callable[[ray.data.Dataset], ray.data.Dataset]
_ERROR = "__inference_error__"
_SPLITS = ("tensor_parallel_size", "pipeline_parallel_size")  # of a model over GPUs


@dataclass(frozen=True)
class Cluster:
    """Where the model runs: as many engines, each with what `engine` says (vLLM's own names).

    Raises InputError where that splits the model over what is no number of GPUs.
    """

    model: str
    engines: int
    batch: int
    engine: dict[str, Any]

    def __post_init__(self) -> None:
        for name in _SPLITS:
            if type(size := self.engine.get(name, 1)) is not int or size < 1:
                raise InputError(f"--engine: {name}={size} is not a number of GPUs; give 1 or more")

    @property
    def gpus(self) -> int:
        """Those of one engine."""
        return math.prod(self.engine.get(name, 1) for name in _SPLITS)


def refuse_missing() -> None:
    """Raises InputError where the extra is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "--vllm: vLLM is not installed; on every node: uv pip install '.[caption]' in the checkout"
            " (docs/captions.md), or give --endpoint URL"
        )


def engine(cluster: Cluster) -> Engine:
    """The model behind a queue of GPU workers."""
    from ray.data.llm import build_processor

    return build_processor(config(cluster), preprocess=_request, postprocess=_answer)  # type: ignore[no-any-return]


def config(cluster: Cluster) -> Any:
    """Pictures are read from the messages by vLLM's own stage; a row that fails ends no job."""
    from ray.data.llm import PrepareMultimodalStageConfig, vLLMEngineProcessorConfig

    return vLLMEngineProcessorConfig(
        model_source=cluster.model,
        engine_kwargs={"limit_mm_per_prompt": {"image": 1}, **cluster.engine},
        batch_size=cluster.batch,
        concurrency=(1, cluster.engines),
        prepare_multimodal_stage=PrepareMultimodalStageConfig(chat_template_content_format="openai"),
        should_continue_on_error=True,
    )


def _request(row: dict[str, Any]) -> dict[str, Any]:
    """What the engine wants of a row."""
    parameters = {"temperature": 0, "max_tokens": MOST_TOKENS, "structured_outputs": {"json": schema()}}
    return {"messages": json.loads(row["asked"]), "sampling_params": parameters}


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a row."""
    return {
        "key": row["key"],
        "text": row["generated_text"],
        "tokens_in": row["num_input_tokens"],
        "tokens_out": row["num_generated_tokens"],
    }


def ask(job: Job, engine: Engine, pending: list[Wanted]) -> Generator[tuple[dict[str, Outcome], Usage]]:
    """Ask about each picture, and once more where the answer cannot be used, as `tasks.ask` does."""
    left = {each.key: each for each in pending}
    for _ in range(MOST_ANSWERS):
        for key, outcome, usage in _round(job, engine, list(left.values())) if left else ():
            if outcome is not None:
                del left[key]
            yield ({} if outcome is None else {key: outcome}), usage
    for key, photo in pictures_of(job.shards, left.values()):
        yield {key: _unasked(photo, job.prompt.pixels)}, Usage()


def _round(job: Job, engine: Engine, pending: list[Wanted]) -> Iterator[tuple[str, Outcome | None, Usage]]:
    """One question a picture. Tasks keep the answers: a kill costs what is under way in the engine."""
    asked = ray.data.from_items(list(_plan(pending))).flat_map(_questions, fn_kwargs={"job": job})
    for row in engine(asked).map(_keep, fn_kwargs={"job": job}).iter_rows():
        yield row["key"], _outcome(job, row), Usage(row["calls"], row["tokens_in"], row["tokens_out"])


def _plan(pending: list[Wanted]) -> Iterator[dict[str, Any]]:
    for (file, group), photos in groupby(pending, key=lambda each: (each.file, each.group)):
        here = list(photos)
        yield {"file": file, "group": group, "rows": [p.row for p in here], "keys": [p.key for p in here]}


def _questions(place: dict[str, Any], job: Job) -> Iterator[dict[str, str]]:
    """What the engine is asked of a row group. A photo that does not decode is left to `_unasked`."""
    pictures = read_pictures(job.shards, place["file"], place["group"])
    for row, key in zip(place["rows"], place["keys"], strict=True):
        with contextlib.suppress(InputError):
            shown = messages(job.prompt, sent(pictures[row], job.prompt.pixels))
            yield {"key": key, "asked": json.dumps(question(shown, job.answers.get(key), job.prompt.words))}


def _keep(row: dict[str, Any], job: Job) -> dict[str, Any]:
    if row[_ERROR]:
        return {"key": row["key"], "error": row[_ERROR], "calls": 0, "tokens_in": 0, "tokens_out": 0}
    usage = Usage(1, int(row["tokens_in"]), int(row["tokens_out"]))
    job.answers.put(row["key"], kept(job.answers.get(row["key"]), row["text"], usage))
    return {
        "key": row["key"],
        "error": "",
        "calls": 1,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
    }


def _outcome(job: Job, row: dict[str, Any]) -> Outcome | None:
    if row["error"]:
        return Outcome(None, "no answer", row["error"], failed=True)
    return outcome_of(job.answers.get(row["key"]), job.prompt.words)


def _unasked(photo: bytes, pixels: int) -> Outcome:
    """Why the engine said nothing of a picture."""
    try:
        sent(photo, pixels)
    except InputError as error:
        return Outcome(None, "photo does not decode", str(error))
    return Outcome(None, "no answer", "the engine returned no row", failed=True)
