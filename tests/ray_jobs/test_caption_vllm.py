"""Captions from vLLM in the cluster, with a fake engine: a real one needs GPUs and the extra `caption`."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from ray_jobs.caption import parser
from ray_jobs.captioning import vllm
from ray_jobs.captioning.ledger import Ledger
from ray_jobs.captioning.options import engine_options
from ray_jobs.captioning.tasks import Job, survey_file
from ray_jobs.jobs.caption import caption
from stbir.captioning.answer_store import AnswerStore
from stbir.captioning.prompt import load_prompt
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.storage.folder import Folder
from tests.ray_jobs.chat_server import MODEL, caption_text, photo
from tests.ray_jobs.engine import fake_engine
from tests.ray_jobs.test_caption import row, write_shards

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is not None, reason="tests an environment without vLLM"
)


def test_each_photo_gets_at_most_two_requests_and_answers_are_stored(
    tmp_path: Path, ray_cluster: str
) -> None:
    rows = [row(number) for number in range(5)] + [row(5, photo=photo(5)[:50])]
    shards, prompt = open_shards(write_shards(tmp_path / "in", rows)), load_prompt()
    store = AnswerStore(Folder(str(tmp_path / "answers")), MODEL, prompt)
    job = Job(shards, store, prompt, "test", False)
    ledger = Ledger(6, [target for file in shards.files for target in survey_file(job, file)[1].targets])
    for outcomes, usage in vllm.caption_targets(job, fake_engine, ledger.pending()):
        ledger.add(outcomes, usage)
    assert ledger.counts() == {
        **{"in": 6, "captioned": 3, "already_there": 0, "kept": 0},
        **{"quarantined": 2, "failed": 1, "not_asked": 0},
    }
    assert {fault.photo_id: fault.reason for fault in ledger.faults()} == {
        "p2": "not JSON",
        "p3": "no answer",
        "p5": "photo does not decode",
    }
    assert (ledger.usage.calls, ledger.usage.tokens_in, ledger.usage.tokens_out) == (6, 42, 18)
    second = Ledger(6, [target for file in shards.files for target in survey_file(job, file)[1].targets])
    assert [target.photo_id for target in second.pending()] == ["p3", "p5"]
    assert [text for texts in ledger.texts().values() for text in texts.values()] == [
        caption_text(number) for number in (0, 1, 4)
    ]


def test_a_missing_extra_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("pip install '.[caption]'")):
        caption(parser().parse_args(["--shards", "x", "--out", str(tmp_path), "--vllm", "--model", "x"]))


def test_missing_gpus_are_an_input_error(
    tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "check_installed", lambda: None)
    shards, out = write_shards(tmp_path / "in", [row(0)]), str(tmp_path / "out")
    arguments = ["--shards", shards, "--out", out, "--vllm", "--model", MODEL]
    sizes = ["tensor_parallel_size=2", "pipeline_parallel_size=2"]
    with pytest.raises(InputError, match="--vllm: an engine needs 4 GPUs, the cluster has 0; start nodes"):
        caption(parser().parse_args([*arguments, "--engine", *sizes]))
    with pytest.raises(InputError, match="--engine: tensor_parallel_size=all is not a number of GPUs; give"):
        caption(parser().parse_args([*arguments, "--engine", "tensor_parallel_size=all"]))


# ray.llm uses deprecated features of pydantic (ray 2.60).
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
def test_the_configuration_of_the_processor() -> None:
    config = vllm.processor_config(vllm.EngineConfig(MODEL, 3, 16, {"max_model_len": 4096}))
    assert (config.model_source, config.batch_size, config.concurrency) == (MODEL, 16, (1, 3))
    assert config.engine_kwargs["max_model_len"] == 4096
    assert config.engine_kwargs["limit_mm_per_prompt"] == {"image": 1}
    assert config.should_continue_on_error
    assert config.prepare_multimodal_stage.chat_template_content_format == "openai"


def test_options_of_the_engine() -> None:
    settings = ["max_model_len=8192", "dtype=bfloat16", 'limit_mm_per_prompt={"image": 2}']
    expected = {"max_model_len": 8192, "dtype": "bfloat16", "limit_mm_per_prompt": {"image": 2}}
    assert engine_options(settings) == json.loads(json.dumps(expected))
    with pytest.raises(InputError, match="--engine: 'eager' has no '='"):
        engine_options(["eager"])
