"""The command `caption` with an endpoint that fails in the ways real ones do."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from pydantic import SecretStr

from ray_jobs.caption import parser
from ray_jobs.captioning import tasks
from ray_jobs.captioning.chat import Endpoint
from ray_jobs.jobs.caption import CAPTIONS_QUARANTINE, caption
from stbir.captioning.answer_store import AnswerRecord, AnswerStore
from stbir.captioning.prompt import load_prompt
from stbir.data.schema import Row
from stbir.data.shard_writer import QUARANTINE, publish, write_quarantine, write_rows
from stbir.data.shards import open_shards
from stbir.data.validation import Fault
from stbir.errors import InputError, JobFailedError
from stbir.storage.folder import Folder
from tests.data.image_files import png
from tests.ray_jobs.chat_server import KEY, MODEL, TOKENS, ChatServer, caption_text, photo


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("STBIR_CAPTION_KEY", KEY)
    with ChatServer().running() as server:
        yield server


def row(number: int, text: str | None = None, source: str | None = None, **changes: object) -> Row:
    columns = {
        "photo_id": f"p{number}",
        "category": "lamp",
        "class": "a" if number % 2 else None,
        "split": "train",
    }
    images = {"photo": photo(number), "sketches": [png(number), b"\x00sketch"][: number % 3]}
    text_columns = {"text": text, "text_source": source, "sketch_count": number % 3}
    return {**columns, **images, **text_columns, **changes}  # type: ignore[return-value, typeddict-item]


def write_shards(uri: object, rows: list[Row], rows_per_file: int = 4) -> str:
    folder = Folder(str(uri))
    starts = range(0, len(rows), rows_per_file)
    parts = [write_rows(folder, n, rows[start : start + rows_per_file]) for n, start in enumerate(starts)]
    publish(folder, parts, {"photos": len(rows)}, {"source": "test"})
    return folder.uri


def read_rows(uri: object) -> list[dict[str, Any]]:
    return [dict(row) for row in open_shards(str(uri)).iter_rows(None)]


def arguments(server: ChatServer, shards: object, out: object, *more: object) -> list[str]:
    backend = ["--endpoint", server.url, "--model", MODEL, "--retry-timeout", 20, "--workers", 1]
    return [str(argument) for argument in ("--shards", shards, "--out", out, *backend, *more)]


def run_caption(server: ChatServer, shards: object, out: object, *more: object) -> dict[str, Any]:
    return caption(parser().parse_args(arguments(server, shards, out, *more)))


# Photo number → steps of its first calls. All photos are captioned in the end.
FAILURES = {
    1: ["500", "503"],
    2: ["429"],
    3: ["cut"],
    4: ["prose"],
    5: ["half"],
    6: ["slow"],
    7: ["background"],
    8: ["nonsense"],
    9: ["fenced"],
    10: ["long", "500"],
}


def quarantine(out: object) -> dict[str, str]:
    rows = pq.read_table(f"{out}/{CAPTIONS_QUARANTINE}").to_pylist()
    return {row["photo_id"]: row["reason"] for row in rows}


def session_logs() -> str:
    """All log files of this Ray session."""
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    assert logs.is_dir()
    return "".join(file.read_text(errors="replace") for file in logs.rglob("*") if file.is_file())


def test_missing_cpus_are_an_input_error(tmp_path: Path, server: ChatServer, no_cpus: None) -> None:
    shards = write_shards(tmp_path / "in", [row(0)])
    with pytest.raises(InputError, match="reading and writing shards needs 1 CPUs, the cluster has 0; start"):
        run_caption(server, shards, tmp_path / "out")
    assert server.delivered.total() == 0


def test_uncaptioned_photos_get_captions_and_nothing_else_changes(
    server: ChatServer,
    ray_cluster: str,
    s3: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    rows = [row(number) for number in range(11)]
    rows += [row(11, "red chair, tall", "given"), row(12, photo=photo(0)), row(13, "  ")]
    shards, out = write_shards(f"{s3}/uncaptioned", rows), f"{s3}/captioned"
    server.plan = FAILURES
    first = run_caption(server, shards, out, "--price-in", 2, "--price-out", 10)
    assert server.violations == []
    counts = {"captioned": 12, "already_there": 1, "kept": 1, "quarantined": 0, "failed": 0, "not_asked": 0}
    assert first["counts"] == {"in": 14, **counts}
    assert "14 photos in = 12 captioned + 1 already there + 1 kept + 0 quarantined" in caplog.text
    # Four answers were invalid and requested again; `half` was truncated in transit.
    assert first["calls"] == server.delivered.total() == 12 + 4
    assert first["tokens"] == {"in": 16 * TOKENS[0], "out": 16 * TOKENS[1]}
    assert first["cost"] == round((16 * TOKENS[0] * 2 + 16 * TOKENS[1] * 10) / 1e6, 4)
    source = f"{MODEL} prompt {first['prompt']}"
    texts = [caption_text(0 if number == 12 else number) for number in range(14)]
    expected = [
        dict(row) | {"text": text, "text_source": source} for row, text in zip(rows, texts, strict=True)
    ]
    expected[11] = dict(rows[11])
    assert read_rows(out) == expected
    manifest = open_shards(out).manifest
    assert (manifest.made_from, manifest.details["source"]) == (open_shards(shards).manifest.digest, "test")
    assert manifest.details["captions"]["prompt"] == first["prompt"]
    assert manifest.counts == {**first["counts"], "photos": 14, "sketches": 13}

    calls = server.calls.total()
    second = run_caption(server, shards, out)
    assert server.calls.total() == calls
    folder = Folder(out)
    files = "".join(folder.read(name).decode(errors="replace") for name in folder.list_files("**"))
    for text in (str(first), caplog.text, *capfd.readouterr(), files, session_logs()):
        assert KEY not in text
    assert second["counts"] == {**first["counts"], "captioned": 0, "already_there": 13}
    assert second["digest"] == first["digest"]


def test_above_the_error_rate_requests_stop_and_nothing_is_published(
    tmp_path: Path, server: ChatServer, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_jobs.jobs.caption._CHUNK_SIZE", 4)
    shards, out = write_shards(tmp_path / "in", [row(number) for number in range(12)]), tmp_path / "out"
    failures = {0: ["cut", "prose"], 1: ["400"], 2: ["background", "long"]}
    server.plan = dict(failures)
    with pytest.raises(
        JobFailedError, match=r"1 captioned .* 2 quarantined \+ 1 failed \+ 8 not asked.*nothing is published"
    ):
        run_caption(server, shards, out, "--max-error-rate", 0.2)
    assert not (out / "manifest.json").exists()
    assert quarantine(out) == {"p0": "not JSON", "p1": "refused", "p2": "too many words"}
    assert server.delivered.total() == 2 + 0 + 2 + 1
    assert server.calls[1] == 1  # a refusal is not retried

    # With a higher error rate the same command resumes. Quarantined photos are not requested again.
    server.plan = {}
    summary = run_caption(server, shards, out, "--max-error-rate", 0.25)
    counts = {"captioned": 9, "already_there": 1, "kept": 0, "quarantined": 2, "failed": 0, "not_asked": 0}
    assert summary["counts"] == {"in": 12, **counts}
    assert server.delivered.total() == 5 + 9
    assert summary["reasons"] == {"not JSON": 1, "too many words": 1}
    assert quarantine(out) == {"p0": "not JSON", "p2": "too many words"}
    assert [row["text"] for row in read_rows(out)][:4] == [None, caption_text(1), None, caption_text(3)]


def test_replace_captions_all_photos_in_place_and_measures_agreement(
    tmp_path: Path, server: ChatServer, ray_cluster: str
) -> None:
    texts = ["gray metal lamp, tall", "red wooden lamp", "silver steel lamps, low", None]
    shards = write_shards(tmp_path, [row(number, text, "given") for number, text in enumerate(texts)])
    write_quarantine(Folder(shards), [Fault("p9", "photo does not decode", "p9.png")])
    quarantined = Folder(shards).read(QUARANTINE)
    summary = run_caption(server, shards, shards, "--replace")
    assert Folder(shards).read(QUARANTINE) == quarantined
    assert quarantine(shards) == {}
    assert summary["counts"]["captioned"] == 4
    assert [row["text"] for row in read_rows(shards)] == [caption_text(number) for number in range(4)]
    assert summary["agreement"] == {
        "colour": {"photos": 3, "agree": 66.7, "recall": 66.7, "precision": 66.7},
        "material": {"photos": 3, "agree": 66.7, "recall": 66.7, "precision": 66.7},
        "item": {"photos": 3, "agree": 100.0, "recall": 100.0, "precision": 100.0},
    }


def test_another_prompt_recaptions_all_photos(tmp_path: Path, server: ChatServer, ray_cluster: str) -> None:
    shards, out = write_shards(tmp_path / "in", [row(0), row(1)]), tmp_path / "out"
    write_quarantine(Folder(shards), [Fault("p9", "photo does not decode", "p9.png")])
    default = run_caption(server, shards, out)
    assert Folder(str(out)).read(QUARANTINE) == Folder(shards).read(QUARANTINE)
    (tmp_path / "short.txt").write_text("Use {words} words.")
    other = run_caption(server, shards, out, "--prompt", tmp_path / "short.txt", "--words", 6)
    assert default["counts"]["captioned"] == other["counts"]["captioned"] == 2
    assert server.delivered.total() == 4
    assert server.requests[0][-1]["messages"][0]["content"] == "Use 6 words."
    assert other["prompt"].startswith("short-")
    assert {row["text_source"] for row in read_rows(out)} == {f"{MODEL} prompt {other['prompt']}"}


def test_a_sample_writes_a_sheet_and_its_answers_are_reused(
    tmp_path: Path, server: ChatServer, ray_cluster: str
) -> None:
    rows = [row(number, "red lamp" if number == 3 else None) for number in range(8)]
    shards, out = write_shards(tmp_path / "in", rows), tmp_path / "out"
    server.plan = {0: ["prose", "prose"], 7: ["400"]}
    more = ("--price-in", 1000, "--price-out", 1000)
    summary = run_caption(server, shards, out, "--sample", 3, *more)
    assert summary["counts"]["in"] == summary["counts"]["captioned"] + 2 == 3
    sheet, page = json.loads((out / "sheet.json").read_text()), (out / "sheet.html").read_text()
    assert summary["sheet"] == str(out / "sheet.html")
    assert [entry["photo_id"] for entry in sheet["captions"]] == ["p0", "p4", "p7"]
    assert [entry["text"] for entry in sheet["captions"]] == [None, caption_text(4), None]
    assert (sheet["rest"]["calls"], sheet["rest"]["measured"]) == (4, 3)
    assert (sheet["rest"]["tokens_in"], sheet["rest"]["cost"]) == (4 * TOKENS[0], 4 * sum(TOKENS) / 1000)
    for text in (caption_text(4), "not JSON", "refused: 400", "two answers", "data:image/jpeg"):
        assert text in page
    assert KEY not in page
    assert not (out / "manifest.json").exists()
    assert run_caption(server, shards, out, "--max-error-rate", 0.5)["counts"]["captioned"] == 5
    assert server.delivered.total() == 3 + 5


class FullStore(AnswerStore):
    """A store on a full disk."""

    def put(self, key: str, record: AnswerRecord) -> None:
        raise InputError("No space left on device")


def test_no_further_answer_is_paid_for_when_one_cannot_be_stored(tmp_path: Path, server: ChatServer) -> None:
    shards = open_shards(write_shards(tmp_path / "in", [row(number) for number in range(12)], 12))
    prompt = load_prompt()
    store = FullStore(Folder(str(tmp_path / "answers")), MODEL, prompt)
    job = tasks.Job(shards, store, prompt, source="model", replace=False)
    _, survey = tasks.survey_file(job, shards.files[0])
    with pytest.raises(InputError, match="No space left"):
        tasks.caption_chunk(job, Endpoint(server.url, MODEL, SecretStr(KEY)), survey.targets, concurrency=2)
    assert 0 < server.delivered.total() <= 2


def test_many_calls_need_confirmation(tmp_path: Path, server: ChatServer, ray_cluster: str) -> None:
    shards, out = write_shards(tmp_path / "in", [row(0), row(1)]), tmp_path / "out"
    with pytest.raises(
        InputError, match=r"^2 calls, about .* input and .* output tokens, .*\(by rule of thumb\).*give --yes"
    ):
        run_caption(server, shards, out, "--confirm-above", 1)
    assert server.calls.total() == 0
    assert run_caption(server, shards, out, "--confirm-above", 1, "--yes")["counts"]["captioned"] == 2


def test_no_request_is_sent_for_a_photo_that_does_not_decode(
    tmp_path: Path, server: ChatServer, ray_cluster: str
) -> None:
    shards = write_shards(tmp_path / "in", [row(0, photo=photo(0)[:60]), row(1, photo=b"?"), row(2)])
    summary = run_caption(server, shards, tmp_path / "out", "--max-error-rate", 0.7)
    assert summary["reasons"] == {"photo does not decode": 2}
    assert server.calls.keys() == {2}


def test_a_rejected_key_is_an_input_error_that_hides_the_key(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(tmp_path / "in", [row(0)])
    monkeypatch.setenv("OTHER", "sk-wrong-one")
    with pytest.raises(InputError, match=r"rejects the API key: 401.*--api-key-env") as error:
        run_caption(server, shards, tmp_path / "out", "--api-key-env", "OTHER")
    assert "sk-wrong-one" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-“quoted”", "sk one"])
def test_an_invalid_key_is_an_input_error_that_hides_the_key(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    shards, file = write_shards(tmp_path / "in", [row(0)]), tmp_path / "key"
    file.write_text(f"{key}\n")
    monkeypatch.setenv("OTHER", key)
    for option in (("--api-key-env", "OTHER"), ("--api-key-file", file)):
        with pytest.raises(InputError, match=f"{option[0]} .*: not a key") as error:
            run_caption(server, shards, tmp_path / "out", *option)
        assert "sk" not in str(error.value).replace(str(tmp_path), "")


def test_the_key_can_be_in_a_file(tmp_path: Path, server: ChatServer, ray_cluster: str) -> None:
    shards, file = write_shards(tmp_path / "in", [row(0)]), tmp_path / "key"
    file.write_text(f"{KEY}\n")
    options = ("--api-key-file", file, "--api-key-env", "UNSET")
    assert run_caption(server, shards, tmp_path / "out", *options)["counts"]["captioned"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--api-key-file", "nowhere.key"], "--api-key-file nowhere.key: FileNotFoundError; give a file"),
        (["--max-error-rate", 2], "--max-error-rate: 2"),
        (["--workers", 0], "--workers: 0"),
        (["--price-in", -1], "--price-in: -1"),
        (["--endpoint", "ftp://x"], "--endpoint: not an http"),
        (["--endpoint", f"http://me:{KEY}@127.0.0.1/v1"], "--endpoint: a URL must not contain a key"),
        (["--endpoint", "http://127.0.0.1:9/v1"], r"--endpoint: http://127.0.0.1:9/v1: .*start it"),
        (["--words", 1], "words: 1"),
        (["--prompt", "nowhere.txt"], "nowhere.txt"),
        (["--shards", "nowhere"], "no shards here.*prepare_shards"),
        (["--sample", 2], "every photo has a text; add --replace"),
    ],
)
def test_invalid_input_is_a_one_line_error_before_any_call(
    tmp_path: Path, server: ChatServer, ray_cluster: str, options: list[object], message: str
) -> None:
    shards = write_shards(tmp_path / "in", [row(0, "a text")])
    with pytest.raises(InputError, match=message) as error:
        run_caption(server, shards, tmp_path / "out", *options)
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value)
    assert server.calls.total() == 0


@pytest.mark.parametrize(
    ("retired", "option"),
    [
        ("--max-bad", "--max-error-rate"),
        ("--wait", "--resource-timeout"),
        ("--patience", "--retry-timeout"),
        ("--in-flight", "--concurrency"),
        ("--key-variable", "--api-key-env"),
        ("--key-file", "--api-key-file"),
    ],
)
def test_a_retired_option_is_refused(
    server: ChatServer, capsys: pytest.CaptureFixture[str], retired: str, option: str
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(arguments(server, "in", "out", retired, "1"))
    assert f"{retired} is now {option}" in capsys.readouterr().err
