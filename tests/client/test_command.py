"""`stbir` as a shell sees it: what it prints, where, and its exit code."""

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

from stbir_client.command import main
from tests.client.conftest import FOUND, Service, answer, problem, slow
from tests.conftest import ROOT, free_port, wait_until

STBIR = [sys.executable, "-m", "stbir_client"]
TABLE = """\
rank  score  category  photo     text
   1  0.910  shoe      shoe/7    a red strap
   2  0.400  chair     chair/12
"""
PNG = b"\x89PNG thumbnail"
TERMINALS = ("KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL", "TMUX", "STBIR_API_KEY")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in TERMINALS}
    return {**kept, "TERM": "xterm", **more}


def stbir(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
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
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TERMINALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def pictured(service: Service) -> Service:
    """The service, with a thumbnail of its first hit alone."""
    service.usual["/v1/photos/shoe%2F7"] = answer(PNG)
    service.usual["/v1/photos/chair%2F12"] = problem(404, "no thumbnail")
    return service


def test_a_table(service: Service, tmp_path: Path) -> None:
    sketch = tmp_path / "me.png"
    sketch.write_bytes(PNG)
    search = ("search", "--url", service.url, "--sketch", str(sketch), "--text", "red strap", "-k", "2")
    fine = ("--category", "shoe", "--sketch-weight", "0.25", "--where", "price<30", "--where", "shop in a,b")
    # A terminal that could show thumbnails, but the output goes elsewhere.
    done = stbir(*search, *fine, STBIR_API_KEY="s3cret\n", TERM="xterm-kitty")
    assert (done.returncode, done.stdout, done.stderr) == (0, TABLE, "")
    (seen,) = service.seen
    fields = {"text": "red strap", "k": "2", "sketch_weight": "0.25", "category": "shoe"}
    assert json.loads(seen.form.pop("where")) == [
        {"column": "price", "op": "lt", "value": 30},
        {"column": "shop", "op": "in", "value": ["a", "b"]},
    ]
    assert seen.form == {"sketch": PNG, **fields}
    assert seen.headers["authorization"] == "Bearer s3cret"
    assert seen.headers["user-agent"].startswith("stbir-client/")


def test_json_is_the_whole_answer(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--url", service.url, "--text", "red", "--json", "--thumbnails", "always"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree == {**FOUND, "request_id": service.seen[0].headers["x-request-id"]}


def test_texts_are_a_column_where_there_are_any_and_long_ones_are_cut(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = FOUND["hits"]
    service.replies += [answer({**FOUND, "hits": [second]}), answer({**FOUND, "hits": [long_of(first)]})]
    for _ in range(2):
        assert main(["search", "--url", service.url, "--text", "red"]) == 0
    bare, one, head, cut = capsys.readouterr().out.splitlines()
    assert (bare.split()[-1], one.split()[-1]) == ("photo", "chair/12")
    assert head.split()[-1] == "text"
    shown = cut.partition("shoe/7  ")[2]
    assert (len(shown), shown[:59], shown[-1]) == (60, ("a red strap and " * 9)[:59], "…")


def long_of(hit: dict[str, Any]) -> dict[str, Any]:
    return {**hit, "text": "a red strap and " * 9}


def test_no_hit(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.replies.append(answer({**FOUND, "hits": []}))
    assert main(["search", "--url", service.url, "--text", "red"]) == 0
    assert capsys.readouterr().out == "no photo found\n"


def test_what_a_service_says_cannot_move_the_cursor(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    hit = {"photo_id": "\x1b[2Ja\nb", "score": 1, "category": "\x9b31m", "uri": "", "text": "\x1b]0;x\x07\n"}
    service.replies.append(answer({**FOUND, "hits": [hit]}))
    assert main(["search", "--url", service.url, "--text", "red"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head == "rank  score  category  photo   text"
    assert line == "   1  1.000  31m       [2Ja b  ]0;x"


def test_info(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"price": "double"}
    gallery = {"version": 3, "count": 24, "categories": ["box", "disc"], "columns": columns}
    service.usual["/v1/info"] = answer({"model": {"dim": 8}, "gallery": gallery, "limits": {"k": 100}})
    assert main(["info", "--url", service.url]) == 0
    facts = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: value.strip() for name, value in facts.items()} == {
        **{"model dim": "8", "gallery version": "3", "photos": "24", "categories": "box, disc"},
        **{"column price": "double", "search by": "sketch, text", "limit k": "100"},
    }
    assert main(["info", "--url", service.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gallery"] == gallery


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("search", "nothing to search by"),
        ("search --sketch nowhere.png", "sketch: nowhere.png cannot be read"),
        ("search --text red -k ten", "argument -k: invalid int value: 'ten'"),
        ("search --text red -k 0", "k: 0 is below 1"),
        ("search --text red --sketch-weight 2", "sketch_weight: 2.0 is not between 0 and 1"),
        ("search --text red --url 127.0.0.1:8000", "url: '127.0.0.1:8000'"),
        ("search --text red --deadline 0", "deadline: 0"),
        ("search --text red --where price", "where: 'price' is no condition; write COLUMN=VALUE"),
        ("search --text red --where price<", "where: 'price<' lacks a value"),
        ("search --text red --thumbnails always", "this terminal shows no pictures"),
        ("search --text red --colour", "unrecognized arguments: --colour"),
        ("find", "invalid choice: 'find'"),
        ("", "arguments are required"),
    ],
)
def test_bad_input_is_one_line_and_2(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments.split())
    except SystemExit as end:  # argparse
        code = end.code if isinstance(end.code, int) else -1
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert shown.err.startswith("stbir")
    assert says in shown.err
    assert shown.err.count("\n") == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in ((["search", "--help"], "--thumbnails"), (["--version"], "stbir 0.")):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
        assert says in capsys.readouterr().out


def test_a_refusal_is_one_line_and_1(service: Service) -> None:
    service.replies.append(problem(401, "send a key", title="Unauthorized", x_request_id="theirs"))
    done = stbir("search", "--url", service.url, "--text", "red", STBIR_API_KEY="s3cret")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "stbir: 401 Unauthorized: send a key (request theirs)\n"


def test_nobody_there_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--url", f"http://127.0.0.1:{free_port()}", "--deadline", "0.3"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores interrupts, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_is_no_traceback(service: Service) -> None:
    service.replies.append(slow)
    command = [*STBIR, "search", "--url", service.url, "--text", "red"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: bool(service.seen), "the request")
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.communicate()[1]) == (130, "")


def test_a_reader_that_leaves_is_no_traceback(service: Service) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*STBIR, "search", "--url", service.url, "--text", "red"]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_an_encoding_that_lacks_a_character(service: Service) -> None:
    hit = {**FOUND["hits"][0], "category": "椅"}
    service.replies.append(answer({**FOUND, "hits": [hit]}))
    done = stbir("search", "--url", service.url, "--text", "red", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0
    assert "?        shoe/7" in done.stdout


def test_thumbnails_under_their_lines(
    pictured: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM_PROGRAM", "iTerm.app")
    assert main(["search", "--url", pictured.url, "--text", "red", "--thumbnails", "always"]) == 0
    shown = capsys.readouterr()
    head, first, picture, second = shown.out.splitlines()
    assert [head, first, second] == TABLE.splitlines()
    assert picture.endswith(f":{base64.b64encode(PNG).decode()}\x07")
    assert shown.err.startswith("stbir: 1 of 2 thumbnails are not shown: 404 Title: no thumbnail")
    assert shown.err.count("\n") == 1


def on_a_terminal(*arguments: str, **variables: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [*STBIR, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**variables), stdout=theirs, stderr=theirs
    ) as process:
        assert process.wait(30) == 0
    shown = os.read(ours, 2**16).decode()
    os.close(ours)
    os.close(theirs)
    return shown.replace("\r\n", "\n")


def test_thumbnails_are_shown_on_a_terminal_that_can(pictured: Service) -> None:
    search = ("search", "--url", pictured.url, "--text", "red")
    sequence = f"m=0;{base64.b64encode(PNG).decode()}\x1b\\"
    assert sequence in on_a_terminal(*search, TERM="xterm-kitty")
    assert on_a_terminal(*search, "--thumbnails", "never", TERM="xterm-kitty") == TABLE
