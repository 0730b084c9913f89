"""API keys: SHA-256 digests in a file, reloaded when the file changes.

python -m serve.http.api_keys NAME [--per-minute N] [--gallery NAME]   prints a new key and its line

A line is NAME SHA256 [SEARCHES A MINUTE] [galleries=NAME,…]; a comment starts with #. Without `galleries` a
key opens the default gallery only; `galleries=*` opens all.
"""

import argparse
import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from serve.galleries import DEFAULT_GALLERY
from serve.problem import Problem
from stbir.errors import InputError

log = logging.getLogger(__name__)
RELOAD_INTERVAL_S = 1.0
KEY_BYTES = 32
_LINE = re.compile(
    r"(?P<name>[\w.-]{1,64})\s+(?P<digest>[0-9a-f]{64})(?:\s+(?P<rate>[1-9]\d{0,8}))?"
    r"(?:\s+galleries=(?P<galleries>\*|[\w-]+(?:,[\w-]+)*))?"
)
_FORM = "NAME SHA256 [SEARCHES A MINUTE] [galleries=NAME,…]"
_SCHEME = "bearer"


@dataclass
class ApiKey:
    """One key, its galleries, and its rate: a token bucket of `per_minute` tokens that refills steadily."""

    name: str
    digest: str
    per_minute: int | None = None
    galleries: frozenset[str] = frozenset({DEFAULT_GALLERY})
    tokens: float = field(default=math.inf, compare=False)
    refill_time_s: float = field(default=0.0, compare=False)

    def acquire(self, now_s: float, cost: float = 1.0) -> float:
        """Take `cost` tokens, at most a full bucket. Returns 0 on success, else the seconds to wait."""
        if self.per_minute is None:
            return 0.0
        cost = min(cost, self.per_minute)
        per_second = self.per_minute / 60
        self.tokens = min(self.per_minute, self.tokens + (now_s - self.refill_time_s) * per_second)
        self.refill_time_s = now_s
        if self.tokens < cost:
            return (cost - self.tokens) / per_second
        self.tokens -= cost
        return 0.0


class ApiKeys:
    """The keys of a file. Changes apply within RELOAD_INTERVAL_S.

    An invalid file keeps the previous keys; a removed one revokes all of them.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = Path(path), clock
        self._stamp: tuple[int, ...] | None = None
        self._stamp = self._read_stamp()
        self._keys = read_keys(self.path)
        self._check_time_s = clock()

    def authenticate(self, authorization: str | None) -> ApiKey:
        """The key of an Authorization header. Raises Problem 401 for a missing or wrong one."""
        self._reload_if_changed()
        scheme, _, secret = (authorization or "").strip().partition(" ")
        key = self._match(secret.strip()) if scheme.lower() == _SCHEME else None
        if key is None:
            detail = "the API key is missing or wrong; send the header Authorization: Bearer KEY"
            raise Problem(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
        return key

    def charge(self, key: ApiKey, cost: float = 1.0) -> None:
        """Take what a request costs from the rate of its key, in searches. Raises Problem 429 over it."""
        if cost and (wait_s := key.acquire(self._clock(), cost)):
            retry_after = str(int(wait_s) + 1)
            detail = f"API key {key.name} allows {key.per_minute} searches a minute; wait {retry_after} s"
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": retry_after})

    def _match(self, secret: str) -> ApiKey | None:
        """The key of a secret. Compares all keys in constant time, so that timing reveals nothing."""
        digest = _digest(secret)
        matches = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        return matches[0] if matches else None

    def _reload_if_changed(self) -> None:
        now_s = self._clock()
        if now_s - self._check_time_s < RELOAD_INTERVAL_S:
            return
        self._check_time_s = now_s
        if (stamp := self._read_stamp()) != self._stamp:
            self._stamp = stamp
            self._reload()

    def _reload(self) -> None:
        if self._stamp is None:
            self._keys = []
            log.error("%s: removed, so all API keys are revoked", self.path)
            return
        try:
            # An unchanged key keeps its token bucket.
            new_keys = read_keys(self.path)
            self._keys = [next((old for old in self._keys if old == new), new) for new in new_keys]
            log.info("API keys reloaded: %d", len(self._keys))
        except InputError as error:
            log.error("API keys not reloaded, the previous ones stay valid: %s", error)

    def _read_stamp(self) -> tuple[int, ...] | None:
        """What changes with the content, also if a copy keeps the time and the size; None without a file."""
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            log.error("%s: not checked for changes: %s", self.path, error)
            return self._stamp
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def read_keys(path: Path) -> list[ApiKey]:
    """The keys of a file. Raises InputError that names the file and the first invalid line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the file of API keys cannot be read ({error})") from error
    keys = []
    for number, line in enumerate(lines, 1):
        if entry := line.partition("#")[0].strip():
            if (match := _LINE.fullmatch(entry)) is None:
                raise InputError(f"{path}: line {number} is not {_FORM}")
            rate = int(match["rate"]) if match["rate"] else None
            galleries = frozenset((match["galleries"] or DEFAULT_GALLERY).split(","))
            keys.append(ApiKey(match["name"], match["digest"], rate, galleries))
    names = [key.name for key in keys]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{path}: duplicate name {', '.join(sorted(duplicates))}; give each key its own")
    return keys


def _digest(secret: str) -> str:
    # Keys are long and random, so a slow hash would cost time a request without adding security.
    return hashlib.sha256(secret.encode()).hexdigest()


def new_key(name: str, per_minute: int | None, galleries: Sequence[str] = ()) -> tuple[str, str]:
    """A new key and its line for the file. Raises InputError for an invalid name, rate or gallery."""
    secret = secrets.token_urlsafe(KEY_BYTES)
    rate, names = str(per_minute or ""), ",".join(galleries)
    line = " ".join(filter(None, [name, _digest(secret), rate, f"galleries={names}" if names else ""]))
    if _LINE.fullmatch(line) is None:
        raise InputError(
            f"{name!r}, {per_minute}, {names!r}: a name is up to 64 of a-z, 0-9, _ . -; a rate is at least 1;"
            " a gallery is its name in the settings, or * for all"
        )
    return secret, line


def main() -> None:
    """The command line."""
    description = "Print a new API key and its line for the file of keys."
    parser = argparse.ArgumentParser("serve.http.api_keys", description=description)
    parser.add_argument("name")
    parser.add_argument("--per-minute", type=int, help="searches a minute (default: no limit)")
    galleries = "a gallery that the key opens, or '*' for all; repeat (default: the default gallery only)"
    parser.add_argument("--gallery", action="append", default=[], metavar="NAME", help=galleries)
    args = parser.parse_args()
    try:
        secret, line = new_key(args.name, args.per_minute, args.gallery)
    except InputError as error:
        parser.error(str(error))
    print(f"key (shown once):   {secret}")
    print(f"line for the file:  {line}")


if __name__ == "__main__":
    main()
