"""The address of the endpoint: the arguments `host` and `port` of `serve run`."""

import socket
from typing import Any

import click
import ray
from ray import serve
from ray._private.utils import read_ray_address
from ray.serve.scripts import parse_runtime_env_args

from stbir.errors import InputError

HOST, PORT = "127.0.0.1", 8000  # Ray's defaults
NAMES = ("host", "port")


def parse_address(args: dict[str, str]) -> tuple[str, int]:
    """Host and port. Raises InputError for a port that is not a number from 1 to 65535."""
    port = args.get("port", str(PORT))
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise InputError(f"port: {port!r} is not a number from 1 to 65535")
    return args.get("host", HOST), int(port)


def check_address(args: dict[str, str]) -> None:
    """Raises InputError if the address is in use, and outside `serve run` if there is one in `args`.

    On a cluster that already runs, its own Serve may listen there: nothing is checked.
    """
    host, port = parse_address(args)
    options = _serve_run_options()
    if options is None:
        if any(name in args for name in NAMES):
            raise InputError("host and port: only for `serve run`; set http_options in the deployment file")
    elif not (ray.is_initialized() or options["address"] or read_ray_address()):
        check_free(host, port)


def check_free(host: str, port: int) -> None:
    """Raises InputError if the address is in use, or is none of this machine."""
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(info[0], socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(info[4])
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"port: cannot listen on {host}:{port} ({reason}); give port=N or host=ADDRESS"
        ) from error


def listen(args: dict[str, str]) -> None:
    """Start Serve at an address of `args`, with Ray as `serve run` starts it. `serve run` then uses both."""
    options = _serve_run_options()
    if options is None or not any(name in args for name in NAMES):
        return
    host, port = parse_address(args)
    if not ray.is_initialized():
        names = ("runtime_env", "runtime_env_json", "working_dir")
        runtime_env = parse_runtime_env_args(**{name: options[name] for name in names})
        ray.init(address=options["address"], namespace="serve", runtime_env=runtime_env)
    serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})


def _serve_run_options() -> dict[str, Any] | None:
    """The options of the command `serve run`; None in another process, such as that of a deploy."""
    context = click.get_current_context(silent=True)
    return context.params if context is not None and context.info_name == "run" else None
