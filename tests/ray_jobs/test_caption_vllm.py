"""Captions by a model in the cluster: all but the engine itself, which needs GPUs and the extra `caption`."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from ray_jobs.caption import parser
from ray_jobs.captioning import vllm
from ray_jobs.captioning.ledger import Ledger
from ray_jobs.captioning.tasks import Job, survey
from ray_jobs.jobs.caption import caption
from stbir.captioning.answer_store import Answers
from stbir.captioning.prompt import load_prompt
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.storage.folder import Folder
from tests.ray_jobs.chat_server import MODEL, caption_of, photo
from tests.ray_jobs.engine import answering
from tests.ray_jobs.test_caption import row, write

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is not None, reason="says what happens where vLLM is not installed"
)


def test_each_picture_is_asked_about_at_most_twice_and_answers_are_kept(
    tmp_path: Path, ray_cluster: str
) -> None:
    rows = [row(number) for number in range(5)] + [row(5, photo=photo(5)[:50])]
    shards, prompt = open_shards(write(tmp_path / "in", rows)), load_prompt()
    answers = Answers(Folder(str(tmp_path / "answers")), MODEL, prompt)
    job = Job(shards, answers, prompt, "test", False)
    ledger = Ledger(6, [each for file in shards.files for each in survey(job, file)[1].wanted])
    for outcomes, usage in vllm.ask(job, answering, ledger.pending()):
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
    assert (ledger.spent.calls, ledger.spent.tokens_in, ledger.spent.tokens_out) == (6, 42, 18)
    again = Ledger(6, [each for file in shards.files for each in survey(job, file)[1].wanted])
    assert [each.photo_id for each in again.pending()] == ["p3", "p5"]
    assert [text for texts in ledger.texts().values() for text in texts.values()] == [
        caption_of(number) for number in (0, 1, 4)
    ]


def test_without_the_extra_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("pip install '.[caption]'")):
        caption(parser().parse_args(["--shards", "x", "--out", str(tmp_path), "--vllm", "--model", "x"]))


def test_a_cluster_without_gpus_is_refused(
    tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "refuse_missing", lambda: None)
    shards, out = write(tmp_path / "in", [row(0)]), str(tmp_path / "out")
    asking = ["--shards", shards, "--out", out, "--vllm", "--model", MODEL]
    split = ["tensor_parallel_size=2", "pipeline_parallel_size=2"]
    with pytest.raises(InputError, match="--vllm: an engine needs 4 GPUs, the cluster has 0; start nodes"):
        caption(parser().parse_args([*asking, "--engine", *split]))
    with pytest.raises(InputError, match="--engine: tensor_parallel_size=all is not a number of GPUs; give"):
        caption(parser().parse_args([*asking, "--engine", "tensor_parallel_size=all"]))


# Ray's own modules for it are declared in a way that pydantic means to drop (ray 2.60, ray/llm).
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
def test_rays_own_processor_takes_the_configuration() -> None:
    config = vllm.config(vllm.Cluster(MODEL, 3, 16, {"max_model_len": 4096}))
    assert (config.model_source, config.batch_size, config.concurrency) == (MODEL, 16, (1, 3))
    assert config.engine_kwargs["max_model_len"] == 4096
    assert config.engine_kwargs["limit_mm_per_prompt"] == {"image": 1}
    assert config.should_continue_on_error
    assert config.prepare_multimodal_stage.chat_template_content_format == "openai"


def test_settings_of_the_engine() -> None:
    from ray_jobs.captioning.options import engine_settings

    given = ["max_model_len=8192", "dtype=bfloat16", 'limit_mm_per_prompt={"image": 2}']
    expected = {"max_model_len": 8192, "dtype": "bfloat16", "limit_mm_per_prompt": {"image": 2}}
    assert engine_settings(given) == json.loads(json.dumps(expected))
    with pytest.raises(InputError, match="--engine: 'eager' has no '='"):
        engine_settings(["eager"])
