"""The command `caption` against an endpoint that behaves like real ones on a bad day."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray

from ray_jobs.caption import parser
from ray_jobs.cli import Failed
from ray_jobs.jobs.caption import UNCAPTIONED, caption
from stbir.data.schema import Row
from stbir.data.shard_writer import QUARANTINE, publish, write_quarantine, write_rows
from stbir.data.shards import open_shards
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.folder import Folder
from tests.conftest import Command
from tests.data.pictures import png
from tests.ray_jobs.chat_server import KEY, MODEL, TOKENS, ChatServer, caption_of, photo


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("STBIR_CAPTION_KEY", KEY)
    with ChatServer().running() as server:
        yield server


def row(number: int, text: str | None = None, source: str | None = None, **changes: object) -> Row:
    plain = {
        "photo_id": f"p{number}",
        "category": "lamp",
        "class": "a" if number % 2 else None,
        "split": "train",
    }
    pictures = {"photo": photo(number), "sketches": [png(number), b"\x00sketch"][: number % 3]}
    rest = {"text": text, "text_source": source, "sketch_count": number % 3}
    return {**plain, **pictures, **rest, **changes}  # type: ignore[return-value, typeddict-item]


def write(uri: object, rows: list[Row], rows_per_file: int = 4) -> str:
    folder = Folder(str(uri))
    starts = range(0, len(rows), rows_per_file)
    parts = [write_rows(folder, n, rows[start : start + rows_per_file]) for n, start in enumerate(starts)]
    publish(folder, parts, {"photos": len(rows)}, {"source": "test"})
    return folder.uri


def rows_of(uri: object) -> list[dict[str, Any]]:
    return [dict(each) for each in open_shards(str(uri)).rows(None)]


def arguments(server: ChatServer, shards: object, out: object, *more: object) -> list[str]:
    asking = ["--endpoint", server.url, "--model", MODEL, "--patience", 20, "--workers", 1]
    return [str(each) for each in ("--shards", shards, "--out", out, *asking, *more)]


def captioned(server: ChatServer, shards: object, out: object, *more: object) -> dict[str, Any]:
    return caption(parser().parse_args(arguments(server, shards, out, *more)))


# What a bad day does to photos 0 … 11: every one of them has a caption in the end.
BAD_DAY = {
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
    return {each["photo_id"]: each["reason"] for each in pq.read_table(f"{out}/{UNCAPTIONED}").to_pylist()}


def session_logs() -> str:
    """All that this run's Ray has logged."""
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    assert logs.is_dir()
    return "".join(file.read_text(errors="replace") for file in logs.rglob("*") if file.is_file())


def test_a_cluster_without_cpus_is_refused(tmp_path: Path, server: ChatServer, no_cpus: None) -> None:
    shards = write(tmp_path / "in", [row(0)])
    with pytest.raises(InputError, match="reading and writing shards needs 1 CPUs, the cluster has 0; start"):
        captioned(server, shards, tmp_path / "out")
    assert server.paid.total() == 0


def test_photos_without_text_get_captions_and_nothing_else_changes(
    tmp_path: Path, server: ChatServer, command: Command, s3: str
) -> None:
    rows = [row(number) for number in range(11)]
    rows += [row(11, "red chair, tall", "given"), row(12, photo=photo(0)), row(13, "  ")]
    shards, out = write(f"{s3}/bare", rows), f"{s3}/captioned"
    server.plan = BAD_DAY
    ran = command("caption", *arguments(server, shards, out, "--price-in", 2, "--price-out", 10))
    assert ran.code == 0, ran.stderr
    assert server.wrong == []
    counts = {"captioned": 12, "already_there": 1, "kept": 1, "quarantined": 0, "failed": 0, "not_asked": 0}
    assert ran.summary["counts"] == {"in": 14, **counts}
    assert "14 photos in = 12 captioned + 1 already there + 1 kept + 0 quarantined" in ran.stderr
    # Four answers could not be used and were asked for again; `half` was cut on its way.
    assert ran.summary["calls"] == server.paid.total() == 12 + 4
    assert ran.summary["tokens"] == {"in": 16 * TOKENS[0], "out": 16 * TOKENS[1]}
    assert ran.summary["cost"] == round((16 * TOKENS[0] * 2 + 16 * TOKENS[1] * 10) / 1e6, 4)
    source = f"{MODEL} prompt {ran.summary['prompt']}"
    texts = [caption_of(0 if number == 12 else number) for number in range(14)]
    expected = [
        dict(each) | {"text": text, "text_source": source} for each, text in zip(rows, texts, strict=True)
    ]
    expected[11] = dict(rows[11])
    assert rows_of(out) == expected
    there = open_shards(out).manifest
    assert (there.made_from, there.details["source"]) == (open_shards(shards).manifest.digest, "test")
    assert there.details["captions"]["prompt"] == ran.summary["prompt"]
    assert open_shards(out).manifest.counts == {**ran.summary["counts"], "photos": 14, "sketches": 13}

    calls = server.calls.total()
    again = captioned(server, shards, out)
    assert server.calls.total() == calls
    folder = Folder(out)
    files = "".join(folder.read(name).decode(errors="replace") for name in folder.names("**"))
    for written in (ran.stdout, ran.stderr, files, session_logs()):
        assert KEY not in written
    assert again["counts"] == {**ran.summary["counts"], "captioned": 0, "already_there": 13}
    assert again["digest"] == ran.summary["digest"]


def test_above_the_budget_nothing_is_published_and_nothing_more_is_paid_for(
    tmp_path: Path, server: ChatServer, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_jobs.jobs.caption._CHUNK", 4)
    shards, out = write(tmp_path / "in", [row(number) for number in range(12)]), tmp_path / "out"
    bad = {0: ["cut", "prose"], 1: ["400"], 2: ["background", "long"]}
    server.plan = dict(bad)
    with pytest.raises(
        Failed, match=r"1 captioned .* 2 quarantined \+ 1 failed \+ 8 not asked.*nothing is published"
    ):
        captioned(server, shards, out, "--max-bad", 0.2)
    assert not (out / "manifest.json").exists()
    assert quarantine(out) == {"p0": "not JSON", "p1": "refused", "p2": "too many words"}
    assert server.paid.total() == 2 + 0 + 2 + 1
    assert server.calls[1] == 1  # a refusal stays one

    # With a greater budget the same command goes on. What is in quarantine stays there without a call.
    server.plan = {}
    summary = captioned(server, shards, out, "--max-bad", 0.25)
    counts = {"captioned": 9, "already_there": 1, "kept": 0, "quarantined": 2, "failed": 0, "not_asked": 0}
    assert summary["counts"] == {"in": 12, **counts}
    assert server.paid.total() == 5 + 9
    assert summary["reasons"] == {"not JSON": 1, "too many words": 1}
    assert quarantine(out) == {"p0": "not JSON", "p2": "too many words"}
    assert [each["text"] for each in rows_of(out)][:4] == [None, caption_of(1), None, caption_of(3)]


def test_replace_asks_about_all_and_compares_and_in_place_is_possible(
    tmp_path: Path, server: ChatServer, ray_cluster: str
) -> None:
    texts = ["gray metal lamp, tall", "red wooden lamp", "silver steel lamps, low", None]
    shards = write(tmp_path, [row(number, text, "given") for number, text in enumerate(texts)])
    write_quarantine(Folder(shards), [Fault("p9", "photo does not decode", "p9.png")])
    unread = Folder(shards).read(QUARANTINE)
    summary = captioned(server, shards, shards, "--replace")
    assert Folder(shards).read(QUARANTINE) == unread
    assert quarantine(shards) == {}
    assert summary["counts"]["captioned"] == 4
    assert [each["text"] for each in rows_of(shards)] == [caption_of(number) for number in range(4)]
    assert summary["agreement"] == {
        "colour": {"photos": 3, "agree": 66.7, "recall": 66.7, "precision": 66.7},
        "material": {"photos": 3, "agree": 66.7, "recall": 66.7, "precision": 66.7},
        "item": {"photos": 3, "agree": 100.0, "recall": 100.0, "precision": 100.0},
    }


def test_another_prompt_another_model_asks_anew_and_says_so(
    tmp_path: Path, server: ChatServer, ray_cluster: str
) -> None:
    shards, out = write(tmp_path / "in", [row(0), row(1)]), tmp_path / "out"
    write_quarantine(Folder(shards), [Fault("p9", "photo does not decode", "p9.png")])
    first = captioned(server, shards, out)
    assert Folder(str(out)).read(QUARANTINE) == Folder(shards).read(QUARANTINE)
    (tmp_path / "short.txt").write_text("Say it in {words} words.")
    other = captioned(server, shards, out, "--prompt", tmp_path / "short.txt", "--words", 6)
    assert (first["counts"]["captioned"], other["counts"]["captioned"], server.paid.total()) == (2, 2, 4)
    assert server.asked[0][-1]["messages"][0]["content"] == "Say it in 6 words."
    assert other["prompt"].startswith("short-")
    assert {each["text_source"] for each in rows_of(out)} == {f"{MODEL} prompt {other['prompt']}"}


def test_a_sample_is_looked_at_first_and_is_not_asked_twice(
    tmp_path: Path, server: ChatServer, ray_cluster: str
) -> None:
    rows = [row(number, "red lamp" if number == 3 else None) for number in range(8)]
    shards, out = write(tmp_path / "in", rows), tmp_path / "out"
    server.plan = {0: ["prose", "prose"], 7: ["400"]}
    more = ("--price-in", 1000, "--price-out", 1000)
    summary = captioned(server, shards, out, "--sample", 3, *more)
    assert summary["counts"]["in"] == summary["counts"]["captioned"] + 2 == 3
    sheet, page = json.loads((out / "sheet.json").read_text()), (out / "sheet.html").read_text()
    assert summary["sheet"] == str(out / "sheet.html")
    assert [each["photo_id"] for each in sheet["captions"]] == ["p0", "p4", "p7"]
    assert [each["text"] for each in sheet["captions"]] == [None, caption_of(4), None]
    assert (sheet["rest"]["calls"], sheet["rest"]["measured"]) == (4, 3)
    assert (sheet["rest"]["tokens_in"], sheet["rest"]["cost"]) == (4 * TOKENS[0], 4 * sum(TOKENS) / 1000)
    for said in (caption_of(4), "not JSON", "refused: 400", "asked twice", "data:image/jpeg"):
        assert said in page
    assert KEY not in page
    assert not (out / "manifest.json").exists()
    assert captioned(server, shards, out, "--max-bad", 0.5)["counts"]["captioned"] == 5
    assert server.paid.total() == 3 + 5


def test_much_is_begun_only_when_it_is_agreed_to(
    tmp_path: Path, server: ChatServer, ray_cluster: str
) -> None:
    shards, out = write(tmp_path / "in", [row(0), row(1)]), tmp_path / "out"
    with pytest.raises(
        InputError, match=r"^2 calls, about .* tokens in .* out, .*\(by rule of thumb\).*give --yes"
    ):
        captioned(server, shards, out, "--confirm-above", 1)
    assert server.calls.total() == 0
    assert captioned(server, shards, out, "--confirm-above", 1, "--yes")["counts"]["captioned"] == 2


def test_a_photo_that_does_not_decode_is_not_asked_about(
    tmp_path: Path, server: ChatServer, ray_cluster: str
) -> None:
    shards = write(tmp_path / "in", [row(0, photo=photo(0)[:60]), row(1, photo=b"?"), row(2)])
    summary = captioned(server, shards, tmp_path / "out", "--max-bad", 0.7)
    assert summary["reasons"] == {"photo does not decode": 2}
    assert server.calls.keys() == {2}


def test_a_key_that_is_refused_ends_it_at_once_and_is_not_shown(
    tmp_path: Path, server: ChatServer, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write(tmp_path / "in", [row(0)])
    monkeypatch.setenv("OTHER", "sk-wrong-one")
    with pytest.raises(InputError, match=r"refuses the key: 401.*--key-variable") as refusal:
        captioned(server, shards, tmp_path / "out", "--key-variable", "OTHER")
    assert "sk-wrong-one" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-“quoted”", "sk one"])
def test_what_is_no_key_is_not_sent_and_not_shown(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    shards, file = write(tmp_path / "in", [row(0)]), tmp_path / "key"
    file.write_text(f"{key}\n")
    monkeypatch.setenv("OTHER", key)
    for option in (("--key-variable", "OTHER"), ("--key-file", file)):
        with pytest.raises(InputError, match=f"{option[0]} .*: what is there is no key") as refusal:
            captioned(server, shards, tmp_path / "out", *option)
        assert "sk" not in str(refusal.value).replace(str(tmp_path), "")


def test_a_key_may_lie_in_a_file(tmp_path: Path, server: ChatServer, ray_cluster: str) -> None:
    shards, file = write(tmp_path / "in", [row(0)]), tmp_path / "key"
    file.write_text(f"{KEY}\n")
    options = ("--key-file", file, "--key-variable", "NOT_THERE")
    assert captioned(server, shards, tmp_path / "out", *options)["counts"]["captioned"] == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--key-file", "nowhere.key"], "--key-file nowhere.key: FileNotFoundError; give a file"),
        (["--max-bad", 2], "--max-bad: 2"),
        (["--workers", 0], "--workers: 0"),
        (["--price-in", -1], "--price-in: -1"),
        (["--endpoint", "ftp://x"], "--endpoint: not an http"),
        (["--endpoint", f"http://me:{KEY}@127.0.0.1/v1"], "--endpoint: an address holds no key"),
        (["--endpoint", "http://127.0.0.1:9/v1"], r"--endpoint: http://127.0.0.1:9/v1: .*start it"),
        (["--words", 1], "words: 1"),
        (["--prompt", "nowhere.txt"], "nowhere.txt"),
        (["--shards", "nowhere"], "no shards here.*prepare_shards"),
        (["--sample", 2], "every photo has a text; --replace"),
    ],
)
def test_bad_input_is_one_line_and_no_call(
    tmp_path: Path, server: ChatServer, ray_cluster: str, options: list[object], says: str
) -> None:
    shards = write(tmp_path / "in", [row(0, "a text")])
    with pytest.raises(InputError, match=says) as refusal:
        captioned(server, shards, tmp_path / "out", *options)
    assert "\n" not in str(refusal.value)
    assert KEY not in str(refusal.value)
    assert server.calls.total() == 0
