"""The shell command `stbir`: output and exit codes."""

import base64
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stbir_client.command import main
from tests.client.conftest import SEARCH_RESPONSE, FakeServer, problem, respond, respond_slowly
from tests.conftest import ROOT, free_port, wait_until

STBIR = [sys.executable, "-m", "stbir_client"]
TABLE = """\
rank  score  category  photo     text
   1  0.910  shoe      shoe/7    a red strap
   2  0.400  chair     chair/12
"""
PNG = b"\x89PNG thumbnail"
VARIABLES = ("KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL", "TMUX", "STBIR_API_KEY")


def environment(**variables: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**others, "TERM": "xterm", **variables}


def run_stbir(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STBIR, *arguments],
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(autouse=True)
def terminal_without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def server_with_thumbnail(server: FakeServer) -> FakeServer:
    """Only the first hit has a thumbnail."""
    server.defaults["/v1/photos/shoe%2F7"] = respond(PNG)
    server.defaults["/v1/photos/chair%2F12"] = problem(404, "no thumbnail")
    return server


def test_search_prints_a_table(server: FakeServer, tmp_path: Path) -> None:
    sketch = tmp_path / "me.png"
    sketch.write_bytes(PNG)
    query = ("--sketch", str(sketch), "--text", "red strap", "-k", "2", "--category", "shoe")
    options = ("--sketch-weight", "0.25", "--where", "price<30", "--where", "shop in a,b")
    # The terminal could show thumbnails, but the output is a pipe.
    variables = {"STBIR_API_KEY": "s3cret\n", "TERM": "xterm-kitty"}
    process = run_stbir("search", "--url", server.url, *query, *options, **variables)
    assert (process.returncode, process.stdout, process.stderr) == (0, TABLE, "")
    (request,) = server.requests
    fields = {"text": "red strap", "k": "2", "sketch_weight": "0.25", "category": "shoe"}
    assert json.loads(request.form.pop("where")) == [
        {"column": "price", "op": "lt", "value": 30},
        {"column": "shop", "op": "in", "value": ["a", "b"]},
    ]
    assert request.form == {"sketch": PNG, **fields}
    assert request.headers["authorization"] == "Bearer s3cret"
    assert request.headers["user-agent"].startswith("stbir-client/")


def test_a_gallery_is_named_by_an_option(server: FakeServer) -> None:
    assert main(["search", "--url", server.url, "--text", "strap", "--gallery", "shoes"]) == 0
    assert server.requests[0].path == "/v1/galleries/shoes/search"
    assert main(["search", "--url", server.url, "--text", "strap", "--gallery", "a/b"]) == 2


def test_steering_options_are_sent(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    [hit, *_], sent = SEARCH_RESPONSE["hits"], list[Any]()

    async def reply(request: Request) -> Response:
        sent.append(await request.json())
        return JSONResponse({**SEARCH_RESPONSE, "hits": [{**hit, "count": 3, "duplicates": ["a", "b"]}]})

    server.replies.append(reply)
    options = ["--without", "red", "--without", "buckle", "--like", "shoe/1", "--unlike", "shoe/2", "--group"]
    assert main(["search", "--url", server.url, "--text", "strap", *options]) == 0
    steering = {name: sent[0][name] for name in ("without", "like", "unlike", "group")}
    without = [{"text": "red"}, {"text": "buckle"}]
    assert steering == {"without": without, "like": ["shoe/1"], "unlike": ["shoe/2"], "group": True}
    assert "shoe/7 (+2)" in capsys.readouterr().out


def test_json_is_the_entire_answer(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--url", server.url, "--text", "red", "--json", "--thumbnails", "always"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree == {**SEARCH_RESPONSE, "request_id": server.requests[0].headers["x-request-id"]}


def test_text_column_is_optional_and_truncated(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hit, hit_without_text = SEARCH_RESPONSE["hits"]
    long_text = "a red strap and " * 9
    for each in (hit_without_text, {**hit, "text": long_text}):
        server.replies.append(respond({**SEARCH_RESPONSE, "hits": [each]}))
        assert main(["search", "--url", server.url, "--text", "red"]) == 0
    short_header, short_row, header, row = capsys.readouterr().out.splitlines()
    assert (short_header.split()[-1], short_row.split()[-1]) == ("photo", "chair/12")
    assert header.split()[-1] == "text"
    text = row.partition("shoe/7  ")[2]
    assert (len(text), text[:59], text[-1]) == (60, long_text[:59], "…")


def test_no_hits(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.replies.append(respond({**SEARCH_RESPONSE, "hits": []}))
    assert main(["search", "--url", server.url, "--text", "red"]) == 0
    assert capsys.readouterr().out == "no matching photos\n"


def test_answers_cannot_inject_escape_sequences(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hit = {"photo_id": "\x1b[2Ja\nb", "score": 1, "category": "\x9b31m", "uri": "", "text": "\x1b]0;x\x07\n"}
    server.replies.append(respond({**SEARCH_RESPONSE, "hits": [hit]}))
    assert main(["search", "--url", server.url, "--text", "red"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header == "rank  score  category  photo   text"
    assert row == "   1  1.000  31m       [2Ja b  ]0;x"


def test_info(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"price": "double"}
    gallery = {"version": 3, "count": 24, "categories": ["box", "disc"], "columns": columns}
    tree = {"model": {"dim": 8}, "gallery": gallery, "limits": {"k": 100}}
    server.defaults["/v1/info"] = respond(tree)
    assert main(["info", "--url", server.url]) == 0
    facts = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: value.strip() for name, value in facts.items()} == {
        **{"model dim": "8", "gallery version": "3", "photos": "24", "categories": "box, disc"},
        **{"column price": "double", "search by": "sketch, text", "limit k": "100"},
    }
    assert main(["info", "--url", server.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gallery"] == gallery


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("search", "nothing to search by"),
        ("search --sketch nowhere.png", "sketch: nowhere.png cannot be read"),
        ("search --text red -k ten", "argument -k: invalid int value: 'ten'"),
        ("search --text red -k 0", "k: 0 is below 1"),
        ("search --text red --sketch-weight 2", "sketch_weight: 2.0 is not between 0 and 1"),
        ("search --text red --url 127.0.0.1:8000", "url: '127.0.0.1:8000'"),
        ("search --text red --deadline 0", "deadline: 0"),
        ("search --text red --where price", "where: 'price' is not a filter; write COLUMN=VALUE"),
        ("search --text red --where price<", "where: 'price<' has no value"),
        ("search --text red --thumbnails always", "this terminal cannot show images"),
        ("search --text red --colour", "unrecognized arguments: --colour"),
        ("find", "invalid choice: 'find'"),
        ("", "arguments are required"),
    ],
)
def test_invalid_input_prints_one_line_and_exits_2(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments.split())
    except SystemExit as error:  # argparse
        code = error.code if isinstance(error.code, int) else -1
    output = capsys.readouterr()
    assert (code, output.out) == (2, "")
    assert output.err.startswith("stbir")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, text in ((["search", "--help"], "--thumbnails"), (["--version"], "stbir 0.")):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 0
        assert text in capsys.readouterr().out


def test_endpoint_error_prints_one_line_and_exits_1(server: FakeServer) -> None:
    server.replies.append(problem(401, "send a key", title="Unauthorized", x_request_id="theirs"))
    process = run_stbir("search", "--url", server.url, "--text", "red", STBIR_API_KEY="s3cret")
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == "stbir: 401 Unauthorized: send a key (request theirs)\n"


def test_unreachable_endpoint_prints_one_line_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--url", f"http://127.0.0.1:{free_port()}", "--deadline", "0.3"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def default_interrupt_handler() -> Iterator[None]:
    """Background processes of a shell ignore interrupts, and child processes inherit that."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("default_interrupt_handler")
def test_interrupt_prints_no_traceback(server: FakeServer) -> None:
    server.replies.append(respond_slowly)
    command = [*STBIR, "search", "--url", server.url, "--text", "red"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: bool(server.requests), "the request")
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.communicate()[1]) == (130, "")


def test_closed_pipe_prints_no_traceback(server: FakeServer) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*STBIR, "search", "--url", server.url, "--text", "red"]
    process = subprocess.run(
        command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


def test_output_encoding_without_the_character(server: FakeServer) -> None:
    hit = {**SEARCH_RESPONSE["hits"][0], "category": "椅"}
    server.replies.append(respond({**SEARCH_RESPONSE, "hits": [hit]}))
    process = run_stbir("search", "--url", server.url, "--text", "red", PYTHONIOENCODING="latin-1")
    assert process.returncode == 0
    assert "?        shoe/7" in process.stdout


def test_thumbnails_follow_their_rows(
    server_with_thumbnail: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM_PROGRAM", "iTerm.app")
    assert (
        main(["search", "--url", server_with_thumbnail.url, "--text", "red", "--thumbnails", "always"]) == 0
    )
    output = capsys.readouterr()
    header, first_row, image, second_row = output.out.splitlines()
    assert [header, first_row, second_row] == TABLE.splitlines()
    assert image.endswith(f":{base64.b64encode(PNG).decode()}\x07")
    assert output.err.startswith("stbir: 1 of 2 thumbnails not shown: 404 Title: no thumbnail")
    assert output.err.count("\n") == 1


def run_in_terminal(*arguments: str, **variables: str) -> str:
    """The output of the command in a pseudo-terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*STBIR, *arguments], cwd=ROOT, env=environment(**variables), stdout=slave, stderr=slave
    )
    with process:
        assert process.wait(30) == 0
    output = os.read(master, 2**16).decode()
    os.close(master)
    os.close(slave)
    return output.replace("\r\n", "\n")


def test_thumbnails_in_a_terminal_with_images(server_with_thumbnail: FakeServer) -> None:
    search = ("search", "--url", server_with_thumbnail.url, "--text", "red")
    sequence = f"m=0;{base64.b64encode(PNG).decode()}\x1b\\"
    assert sequence in run_in_terminal(*search, TERM="xterm-kitty")
    assert run_in_terminal(*search, "--thumbnails", "never", TERM="xterm-kitty") == TABLE
