"""The shell command `stbir`. Exit codes: 0 success, 1 endpoint error or unreachable, 2 invalid input."""

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
from stbir_client.errors import InputError, StbirError
from stbir_client.filters import Condition
from stbir_client.service import DEADLINE_S
from stbir_client.table import format_hits, format_info
from stbir_client.terminal_images import Renderer, select_renderer
from stbir_client.version import __version__

DEFAULT_URL = "http://127.0.0.1:8000"
API_KEY_ENV = "STBIR_API_KEY"
MAX_DOWNLOADS = 8  # concurrent thumbnails


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the encoding may lack characters of the answer
    args = _parse(_parser(), arguments)
    try:
        asyncio.run(args.run(args))
        sys.stdout.flush()
    except StbirError as error:
        print(f"stbir: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # redirect, or Python reports the error once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stbir",
        description="Search photos by a sketch and a short text.",
        epilog=f"{API_KEY_ENV}: the API key, if the endpoint requires one.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="search | info")
    search = commands.add_parser("search", help="search by a sketch, a text, or both")
    _add_search(search)
    info = commands.add_parser("info", help="show what the endpoint serves")
    info.set_defaults(run=_info)
    for command in (search, info):
        command.add_argument("--url", default=DEFAULT_URL, help="of the endpoint (%(default)s)")
        command.add_argument(
            "--gallery", metavar="NAME", help="one of its galleries (default: its default one)"
        )
        command.add_argument(
            "--deadline",
            type=float,
            default=DEADLINE_S,
            metavar="SECONDS",
            help="for the call with its retries (%(default)s)",
        )
        command.add_argument("--json", action="store_true", help="print the answer as JSON")
    return parser


def _add_search(search: argparse.ArgumentParser) -> None:
    search.add_argument("--sketch", metavar="FILE", help="PNG, JPEG or WebP")
    search.add_argument("--text", help="short text: colour, material, parts")
    search.add_argument("-k", type=int, default=10, metavar="HITS", help="number of hits (%(default)s)")
    marks = {"like": "relevant: hits are more like it", "unlike": "not relevant: hits are less like it"}
    for name, meaning in marks.items():
        search.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="PHOTO_ID",
            help=f"a photo that is {meaning}; repeat",
        )
    search.add_argument(
        "--without", action="append", default=[], metavar="TEXT", help="what hits should not show; repeat"
    )
    search.add_argument("--group", action="store_true", help="show near-duplicates as one hit")
    least = "least probability that a hit is the photo meant, 0 to 1"
    search.add_argument("--min-match", type=float, default=0.0, metavar="P", help=least)
    search.add_argument("--category", help="search only in this category")
    search.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FILTER",
        help="'price<30' or 'shop in a,b': = != < <= > >= in, on a column of the gallery (see stbir info); a"
        " number in quotes is text, as in 'shop=\"7\"'; repeat to combine filters with AND",
    )
    search.add_argument(
        "--sketch-weight",
        type=float,
        default=0.5,
        metavar="WEIGHT",
        help="weight of the sketch against the text, 0 to 1 (%(default)s)",
    )
    search.add_argument(
        "--thumbnails",
        choices=("auto", "always", "never"),
        default="auto",
        help="in kitty, Ghostty, iTerm2 and WezTerm; auto: if the output is a terminal",
    )
    search.set_defaults(run=_search)


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; an error prints its message without the usage."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            return parser.parse_args(arguments)
    except SystemExit:
        for line in output.getvalue().splitlines()[-1:]:
            print(line, file=sys.stderr)
        raise


def _client(args: argparse.Namespace) -> AsyncClient:
    key = os.environ.get(API_KEY_ENV, "").strip() or None
    return AsyncClient(args.url, key=key, deadline=args.deadline, gallery=args.gallery)


async def _info(args: argparse.Namespace) -> None:
    async with _client(args) as client:
        info = await client.info()
    print(json.dumps(asdict(info)) if args.json else "\n".join(format_info(info)))


async def _search(args: argparse.Namespace) -> None:
    render, where = _renderer(args), [Condition.parse(text) for text in args.where]
    async with _client(args) as client:
        answer = await client.search(
            *(args.sketch, args.text, args.k, args.sketch_weight, args.category, None, where),
            without=args.without,
            like=args.like,
            unlike=args.unlike,
            group=args.group,
            min_match=args.min_match,
        )
        thumbnails = await _thumbnails(client, answer, render) if render else [""] * len(answer.hits)
    print(json.dumps(asdict(answer)) if args.json else _format(answer, thumbnails))


def _renderer(args: argparse.Namespace) -> Renderer | None:
    is_forced = args.thumbnails == "always"
    if args.json or args.thumbnails == "never" or not (is_forced or sys.stdout.isatty()):
        return None
    render = select_renderer(os.environ)
    if render is None and is_forced:
        raise InputError("--thumbnails always: this terminal cannot show images; use kitty or iTerm2")
    return render


async def _thumbnails(client: AsyncClient, answer: Answer, render: Renderer) -> list[str]:
    """One rendered thumbnail per hit. A failed one is empty; one line on stderr reports the failures."""
    semaphore = asyncio.Semaphore(MAX_DOWNLOADS)

    async def load(hit: Hit) -> str | StbirError:
        try:
            async with semaphore:
                return render(await client.thumbnail(hit.photo_id))
        except StbirError as error:
            return error

    thumbnails = await asyncio.gather(*map(load, answer.hits))
    errors = [each for each in thumbnails if isinstance(each, StbirError)]
    if errors:
        print(f"stbir: {len(errors)} of {len(thumbnails)} thumbnails not shown: {errors[0]}", file=sys.stderr)
    return ["" if isinstance(each, StbirError) else each for each in thumbnails]


def _format(answer: Answer, thumbnails: list[str]) -> str:
    if not answer.hits:
        return "no matching photos"
    header, *lines = format_hits(answer)
    rows = (f"{line}\n{image}" if image else line for line, image in zip(lines, thumbnails, strict=True))
    return "\n".join([header, *rows])
