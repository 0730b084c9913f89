"""What `caption` may be told, and what of that makes sense."""

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from ray_jobs.captioning.chat import FORMS, Endpoint
from ray_jobs.cli import add_wait
from stbir.captioning.caption import MOST_WORDS
from stbir.captioning.prompt import PIXELS
from stbir.errors import InputError

KEY_VARIABLE = "STBIR_CAPTION_KEY"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="caption",
        description="Write shards again, with captions by a vision-language model for photos without text.",
        epilog="Look at --sample 20 first. Every answer is kept under --answers: the same command again,"
        " after a kill too, asks only what was not answered. Exit code 1, nothing published, where more"
        " photos get no caption than --max-bad allows; captions_quarantine.parquet says why. One that gets"
        " none stays as it was.",
    )
    add = parser.add_argument
    add(
        "--shards",
        required=True,
        metavar="URI",
        help="made by prepare_shards.py (--requires photo | sketch)",
    )
    add("--out", required=True, metavar="URI", help="folder to write to; may be that of --shards")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible one: http://127.0.0.1:8000/v1")
    where.add_argument("--vllm", action="store_true", help="run the model in the cluster (extra `caption`)")
    add("--model", required=True, metavar="NAME", help="as the endpoint or vLLM knows it")
    add("--replace", action="store_true", help="caption all photos, also those that have a text")
    add(
        "--sample", type=int, metavar="N", help="caption N photos, write sheet.html to --out, publish nothing"
    )
    add(
        "--prompt",
        metavar="FILE",
        help="a prompt of your own; its name and content are its version",
    )
    add("--words", type=int, default=MOST_WORDS, metavar="N", help="most words of a caption (%(default)s)")
    add("--pixels", type=int, default=PIXELS, metavar="N", help="longer side of what is sent (%(default)s)")
    add("--answers", metavar="URI", help="where answers are kept (default: answers/ in --out)")
    _add_pace(parser)
    _add_bounds(parser)
    return parser


def _add_pace(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--workers",
        type=int,
        default=2,
        metavar="N",
        help="tasks that ask; with --vllm engines (%(default)s)",
    )
    add(
        "--in-flight",
        type=int,
        default=8,
        metavar="N",
        help="calls under way in each, or batch (%(default)s)",
    )
    add("--form", choices=FORMS, default="schema", help="how the endpoint is told the form (%(default)s)")
    add("--timeout", type=float, default=120, metavar="S", help="seconds for one call (%(default)s)")
    add(
        "--patience",
        type=float,
        default=300,
        metavar="S",
        help="seconds for a photo's attempts (%(default)s)",
    )
    add(
        "--key-variable", default=KEY_VARIABLE, metavar="NAME", help="the variable with the key (%(default)s)"
    )
    add("--key-file", metavar="PATH", help="a file with the key, in place of the variable")
    add_wait(parser)
    add("--engine", nargs="+", default=[], metavar="NAME=JSON", help="with --vllm: max_model_len=8192 …")


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max-bad", type=float, default=0.01, metavar="SHARE", help="share that may fail (%(default)s)")
    add("--price-in", type=float, metavar="P", help="of a million tokens in, for the estimate")
    add("--price-out", type=float, metavar="P", help="of a million tokens out")
    add("--confirm-above", type=int, default=1000, metavar="N", help="more calls want --yes (%(default)s)")
    add("--yes", action="store_true", help="begin, however many calls it takes")


def check(args: argparse.Namespace) -> None:
    """Raises InputError for values that make no sense."""
    if not 0 <= args.max_bad <= 1:
        raise InputError(f"--max-bad: {args.max_bad} is not a share between 0 and 1")
    for name in ("sample", "workers", "in_flight"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')}: {value} is less than 1")
    for name in ("timeout", "patience", "price_in", "price_out", "confirm_above"):
        value = getattr(args, name)
        if value is not None and value < 0:
            raise InputError(f"--{name.replace('_', '-')}: {value} is negative")


def endpoint(args: argparse.Namespace) -> Endpoint:
    """Where to ask, with the key from the environment: read here and written nowhere."""
    parts = urlsplit(args.endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("--endpoint: not an http(s) address; give one like http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise InputError("--endpoint: an address holds no key; put that into the variable of --key-variable")
    return Endpoint(
        url=args.endpoint.rstrip("/"),
        model=args.model,
        key=_key(args),
        form=args.form,
        timeout=args.timeout,
        patience=args.patience,
    )


def _key(args: argparse.Namespace) -> SecretStr | None:
    """From its file or variable; it goes into a header. Raises InputError that does not show it."""
    where = f"--key-file {args.key_file}" if args.key_file else f"--key-variable {args.key_variable}"
    try:
        given = Path(args.key_file).read_text() if args.key_file else os.environ.get(args.key_variable, "")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: {type(error).__name__}; give a file with the key alone in it") from error
    key = given.strip()
    if not all("!" <= letter <= "~" for letter in key) or (args.key_file and not key):
        raise InputError(f"{where}: what is there is no key: spaces, lines or odd letters; the key alone")
    return SecretStr(key) if key else None


def engine_settings(given: Iterable[str]) -> dict[str, Any]:
    """`NAME=JSON` as vLLM's engine takes it; what is no JSON is a word."""
    settings = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise InputError(f"--engine: {each!r} has no '='; write NAME=JSON")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings
