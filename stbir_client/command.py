"""The shell command `stbir`: exit code 0 done, 1 the service refused or was not reached, 2 bad input."""

import argparse
import asyncio
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from stbir_client.answer import Answer, Hit
from stbir_client.client import AsyncClient
from stbir_client.condition import Condition
from stbir_client.errors import InputError, StbirError
from stbir_client.picture import Draw, drawer
from stbir_client.service import DEADLINE_S
from stbir_client.table import hit_lines, info_lines
from stbir_client.version import __version__

URL = "http://127.0.0.1:8000"
KEY = "STBIR_API_KEY"
AT_ONCE = 8  # thumbnails


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # some terminals lack the letters of some categories
    asked = _parsed(_parser(), arguments)
    try:
        asyncio.run(asked.work(asked))
        sys.stdout.flush()
    except StbirError as error:
        print(f"stbir: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough; Python would complain once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stbir",
        description="Find a photo by a sketch and a few words.",
        epilog=f"{KEY}: the key of an endpoint that asks for one.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="search | info")
    search = commands.add_parser("search", help="the photos nearest to a sketch, a text, or both")
    _add_search(search)
    info = commands.add_parser("info", help="what an endpoint serves")
    info.set_defaults(work=_info)
    for command in (search, info):
        command.add_argument("--url", default=URL, help="of the endpoint (%(default)s)")
        command.add_argument(
            "--deadline",
            type=float,
            default=DEADLINE_S,
            metavar="SECONDS",
            help="for the whole call (%(default)s)",
        )
        command.add_argument("--json", action="store_true", help="print the answer as JSON")
    return parser


def _add_search(search: argparse.ArgumentParser) -> None:
    search.add_argument("--sketch", metavar="FILE", help="PNG, JPEG or WebP")
    search.add_argument("--text", help="a few words: colour, material, parts")
    search.add_argument("-k", type=int, default=10, metavar="HITS", help="how many (%(default)s)")
    search.add_argument("--like", metavar="PHOTO_ID", help="in place of a sketch: more like this photo")
    search.add_argument("--category", help="search in this one alone")
    search.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="'price<30', 'shop in a,b': = != < <= > >= in, on a column of the gallery (see: stbir info); in"
        " quotes, as 'shop=\"7\"', a number is text; more than one: all are met",
    )
    search.add_argument(
        "--sketch-weight",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="what the sketch counts against the text, 0 to 1 (%(default)s)",
    )
    search.add_argument(
        "--thumbnails",
        choices=("auto", "always", "never"),
        default="auto",
        help="in the terminals kitty, Ghostty, iTerm2 and WezTerm; auto: unless the output goes elsewhere",
    )
    search.set_defaults(work=_search)


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Of what argparse complains, one line: the last one, beneath the usage."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return parser.parse_args(arguments)
    except SystemExit:
        for line in complaint.getvalue().splitlines()[-1:]:
            print(line, file=sys.stderr)
        raise


def _client(asked: argparse.Namespace) -> AsyncClient:
    key = os.environ.get(KEY, "").strip() or None
    return AsyncClient(asked.url, key=key, deadline=asked.deadline)


async def _info(asked: argparse.Namespace) -> None:
    async with _client(asked) as client:
        info = await client.info()
    print(json.dumps(asdict(info)) if asked.json else "\n".join(info_lines(info)))


async def _search(asked: argparse.Namespace) -> None:
    draw, where = _drawer(asked), [Condition.read(text) for text in asked.where]
    async with _client(asked) as client:
        answer = await client.search(
            asked.sketch, asked.text, asked.k, asked.sketch_weight, asked.category, asked.like, where
        )
        pictures = await _pictures(client, answer, draw) if draw else []
    print(json.dumps(asdict(answer)) if asked.json else _page(answer, pictures))


def _drawer(asked: argparse.Namespace) -> Draw | None:
    always = asked.thumbnails == "always"
    if asked.json or asked.thumbnails == "never" or not (always or sys.stdout.isatty()):
        return None
    draw = drawer(os.environ)
    if draw is None and always:
        raise InputError("--thumbnails always: this terminal shows no pictures (kitty and iTerm2 do)")
    return draw


async def _pictures(client: AsyncClient, answer: Answer, draw: Draw) -> list[str]:
    """A picture a hit, empty where there is none: then a line on standard error says why."""
    places = asyncio.Semaphore(AT_ONCE)

    async def thumbnail(hit: Hit) -> bytes:
        async with places:
            return await client.thumbnail(hit.photo_id)

    found = await asyncio.gather(*map(thumbnail, answer.hits), return_exceptions=True)
    drawn = [_drawn(data, draw) for data in found]
    missing = [error for error in drawn if isinstance(error, StbirError)]
    if missing:
        print(
            f"stbir: {len(missing)} of {len(drawn)} thumbnails are not shown: {missing[0]}", file=sys.stderr
        )
    return ["" if isinstance(picture, StbirError) else picture for picture in drawn]


def _drawn(data: bytes | BaseException, draw: Draw) -> str | StbirError:
    try:
        if isinstance(data, BaseException):
            raise data
        return draw(data)
    except StbirError as error:
        return error


def _page(answer: Answer, pictures: list[str]) -> str:
    if not answer.hits:
        return "no photo found"
    head, *lines = hit_lines(answer)
    pictures = pictures or [""] * len(lines)
    below = (f"{line}\n{picture}" if picture else line for line, picture in zip(lines, pictures, strict=True))
    return "\n".join([head, *below])
