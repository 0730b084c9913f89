"""Options of `caption` and their validation."""

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from ray_jobs.captioning.chat import ANSWER_FORMATS, Endpoint
from ray_jobs.cli import (
    add_max_error_rate,
    add_resource_timeout,
    add_retired,
    check_error_rate,
    check_minimum,
)
from stbir.captioning.caption import MAX_WORD_COUNT
from stbir.captioning.prompt import MAX_SIDE
from stbir.errors import InputError

API_KEY_ENV = "STBIR_CAPTION_KEY"
_RETIRED = {
    "--patience": "--retry-timeout",
    "--in-flight": "--concurrency",
    "--key-variable": "--api-key-env",
    "--key-file": "--api-key-file",
}


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="caption",
        description="Add captions by a vision-language model to the photos of shards that have no text.",
        epilog="Review --sample 20 first. All answers are stored under --answers: run the same command again"
        " to resume, also after a kill. If more photos fail than --max-error-rate allows, the exit code is 1"
        " and nothing is published; captions_quarantine.parquet lists the reasons. A photo that fails stays"
        " as it was.",
    )
    _add_data(parser)
    _add_backend(parser)
    _add_limits(parser)
    add_resource_timeout(parser)
    add_retired(parser, _RETIRED)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shards", required=True, metavar="URI", help="from prepare_shards.py (--require photo or sketch)")
    add("--out", required=True, metavar="URI", help="output folder; may be that of --shards")
    add("--answers", metavar="URI", help="store of all answers (default: answers/ in --out)")
    add("--replace", action="store_true", help="also caption photos that have a text")
    add("--sample", type=int, metavar="N", help="caption N photos, write sheet.html, publish nothing")
    add("--prompt", metavar="FILE", help="custom prompt; its version covers name and content")
    add(
        "--words",
        dest="max_word_count",
        type=int,
        default=MAX_WORD_COUNT,
        metavar="N",
        help="maximum number of words of a caption (%(default)s)",
    )
    add(
        "--pixels",
        dest="max_side",
        type=int,
        default=MAX_SIDE,
        metavar="N",
        help="longer side of the image in a request (%(default)s)",
    )


def _add_backend(parser: argparse.ArgumentParser) -> None:
    backend = parser.add_mutually_exclusive_group(required=True)
    backend.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible: http://127.0.0.1:8000/v1")
    backend.add_argument("--vllm", action="store_true", help="run the model in the cluster (extra `caption`)")
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="model name at the endpoint or in vLLM")
    add("--form", choices=ANSWER_FORMATS, default="schema", help="how a request demands JSON (%(default)s)")
    add("--engine", nargs="+", default=[], metavar="NAME=JSON", help="with --vllm: max_model_len=8192 …")
    add("--workers", type=int, default=2, metavar="N", help="tasks, or engines with --vllm (%(default)s)")
    add("--concurrency", type=int, default=8, metavar="N", help="concurrent calls per worker (%(default)s)")
    add("--timeout", type=float, default=120, metavar="S", help="seconds per call (%(default)s)")
    add("--retry-timeout", type=float, default=300, metavar="S", help="seconds per photo (%(default)s)")
    add("--api-key-env", default=API_KEY_ENV, metavar="NAME", help="variable of the API key (%(default)s)")
    add("--api-key-file", metavar="PATH", help="file of the API key, instead of the variable")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_max_error_rate(parser, "failures allowed")
    add("--price-in", type=float, metavar="P", help="price of a million input tokens, for the estimate")
    add("--price-out", type=float, metavar="P", help="price of a million output tokens")
    add("--confirm-above", type=int, default=1000, metavar="N", help="more calls need --yes (%(default)s)")
    add("--yes", action="store_true", help="start without a limit on calls")


def check_options(args: argparse.Namespace) -> None:
    """Raises InputError for options out of range."""
    check_error_rate(args)
    check_minimum(args, 1, "sample", "workers", "concurrency")
    check_minimum(args, 0, "timeout", "retry_timeout", "price_in", "price_out", "confirm_above")


def build_endpoint(args: argparse.Namespace) -> Endpoint:
    """Build the endpoint. Raises InputError for an invalid URL or API key."""
    parts = urlsplit(args.endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("--endpoint: not an http(s) URL; give one like http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise InputError("--endpoint: a URL must not contain a key; use the variable of --api-key-env")
    return Endpoint(
        url=args.endpoint.rstrip("/"),
        model=args.model,
        api_key=_api_key(args),
        answer_format=args.form,
        timeout_s=args.timeout,
        retry_timeout_s=args.retry_timeout,
    )


def _api_key(args: argparse.Namespace) -> SecretStr | None:
    """Read the API key from its file or variable. The InputError for an invalid key does not contain it."""
    file, variable = args.api_key_file, args.api_key_env
    source = f"--api-key-file {file}" if file else f"--api-key-env {variable}"
    try:
        key = (Path(file).read_text() if file else os.environ.get(variable, "")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{source}: {type(error).__name__}; give a file that contains only the key"
        ) from error
    if not all("!" <= letter <= "~" for letter in key) or (file and not key):
        raise InputError(f"{source}: not a key (empty, spaces, lines or non-ASCII); give only the key")
    return SecretStr(key) if key else None


def engine_options(settings: Iterable[str]) -> dict[str, Any]:
    """Parse `NAME=JSON` options of the vLLM engine; a value that is not JSON is a string."""
    options = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--engine: {setting!r} has no '='; write NAME=JSON")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
