"""Search a folder of photos by drawing: index it, open the endpoint, and take up photos that change.

python -m serve.search_folder PHOTOS --checkpoint URI [--gallery URI] [--host ADDRESS] [--port N]
"""

import argparse
import contextlib
import hashlib
import logging
import os
import signal
import sys
import time
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve import environment
from stbir.errors import InputError, JobFailedError

if TYPE_CHECKING:
    from stbir import Model

log = logging.getLogger(__name__)
MAX_ERROR_RATE = 0.5  # a folder of one's own may hold broken files; each is named
READY_TIMEOUT_S = 120
QUIET_MS = 2000  # after a change, files may still be arriving
Files = set[tuple[str, int, int]]  # path, size in bytes, time of the last change in ns


class FolderSearch:
    """The gallery of a folder of photos, and the endpoint that serves it."""

    def __init__(self, photos: Path, model: "Model", gallery: str) -> None:
        self._photos, self._model, self._gallery = photos, model, gallery
        self._indexed: Files = set()

    def index(self) -> None:
        """Embed new and changed photos, and publish. Raises as `stbir.index`."""
        import stbir

        self._indexed = _list(self._photos)
        stbir.index(f"folder:{self._photos}", self._model, self._gallery, max_error_rate=MAX_ERROR_RATE)

    def deploy(self) -> None:
        """Deploy the published version; the endpoint answers from it without a pause."""
        from ray import serve

        from serve.wiring import build_application

        serve.run(build_application({"checkpoint": str(self._model.uri), "gallery": self._gallery}))

    def update(self) -> None:
        """Index and deploy. If the folder cannot be indexed now, the version before stays."""
        try:
            self.index()
        except (InputError, JobFailedError) as error:
            log.warning("%s; the photos before this change are still served", error)
        else:
            self.deploy()

    def watch(self) -> None:
        """Update after each change of the folder, for ever."""
        from watchfiles import watch

        # Yields after changes, and when none have come for a while. At the first one, files may have changed
        # before the watch began.
        options: dict[str, Any] = {"debounce": QUIET_MS, "step": QUIET_MS, "yield_on_timeout": True}
        for number, changes in enumerate(watch(self._photos, **options)):
            if (changes or number == 0) and _list(self._photos) != self._indexed:
                self.update()


def main(args: argparse.Namespace) -> None:
    """Index, serve and watch until a signal. Raises InputError for unusable input or a port in use."""
    photos = Path(args.photos).expanduser().resolve()
    if not photos.is_dir():
        raise InputError(f"PHOTOS: {photos} is not a folder on this machine; for URIs: docs/index_gallery.md")
    gallery = args.gallery or default_gallery(photos)
    if Path(gallery).resolve().is_relative_to(photos):
        raise InputError(f"--gallery: {gallery} is inside PHOTOS; give a folder outside it")
    environment.set_defaults(os.environ)
    from serve.address import check_free, parse_address

    check_free(*parse_address({"host": args.host, "port": str(args.port)}))
    import stbir

    search = FolderSearch(photos, stbir.load(args.checkpoint), gallery)
    search.index()
    _start_serve(args.host, args.port)
    search.deploy()
    url = f"http://{args.host}:{args.port}"
    _wait_until_ready(url)
    print(f"draw to find: {url}/  (Ctrl-C ends it)", flush=True)
    search.watch()


def _list(photos: Path) -> Files:
    found: Files = set()
    for path in photos.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it has gone since it was listed
            stat = path.stat()
            found.add((str(path), stat.st_size, stat.st_mtime_ns))
    return found


def _start_serve(host: str, port: int) -> None:
    import ray
    from ray import serve

    # Ray forks only to execute, which is safe with Lance's threads.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    ray.init(address="local", namespace="serve", logging_level=logging.WARNING, log_to_driver=False)
    serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
    logging.getLogger("ray.serve").setLevel(logging.WARNING)


def _wait_until_ready(url: str) -> None:
    """Return when the endpoint has taken up its first release."""
    local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    stop = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < stop:
        with contextlib.suppress(OSError), local.open(f"{url}/readyz", timeout=10):  # 503 is an OSError, too
            return
        time.sleep(0.5)
    raise JobFailedError(
        f"{url}: not ready after {READY_TIMEOUT_S} s; see /tmp/ray/session_latest/logs/serve", {}
    )


def default_gallery(photos: Path) -> str:
    """A folder under `out/search` for the gallery of these photos; the pad shows its last part."""
    return f"out/search/{hashlib.sha256(str(photos).encode()).hexdigest()[:8]}/{photos.name}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("search_folder", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("photos", metavar="PHOTOS", help="a folder of images")
    add("--checkpoint", required=True, metavar="URI", help="made by train.py or init_checkpoint.py")
    add("--gallery", metavar="URI", help="where to keep the index (default: a folder under out/search)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen at (%(default)s)")
    add("--port", type=int, default=8000, metavar="N", help="port to listen at (%(default)s)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run until a signal. Returns the exit code: 130 after Ctrl-C or SIGTERM, 2 for invalid input, else 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(args)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ray's processes end now, which takes seconds
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return 128 + signal.SIGINT
    except (InputError, JobFailedError) as error:
        print(f"search_folder: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(run(parser().parse_args()))
