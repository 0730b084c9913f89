"""Who may ask: keys in a file, as digests only, read again when the file changes.

python -m serve.http.api_keys NAME [--per-minute N]   prints a new key and its line

A line is NAME SHA256 [SEARCHES A MINUTE]; what follows # is a comment.
"""

import argparse
import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from serve.problem import Problem
from stbir.errors import InputError

log = logging.getLogger(__name__)
LOOK_S = 1.0  # how often the file is looked at
KEY_BYTES = 32
_LINE = re.compile(r"(?P<name>[\w.-]{1,64})\s+(?P<digest>[0-9a-f]{64})(?:\s+(?P<rate>[1-9]\d{0,8}))?")
_SCHEME = "bearer"


@dataclass
class Key:
    """One key, and what is left of its minute: a bucket that fills steadily, to `per_minute` at most."""

    name: str
    digest: str
    per_minute: int | None = None
    left: float = field(default=math.inf, compare=False)
    filled: float = field(default=0.0, compare=False)

    def wait_s(self, now: float) -> float:
        """Take a place, or say how many seconds until there is one; 0 where it was taken."""
        if self.per_minute is None:
            return 0.0
        a_second = self.per_minute / 60
        self.left = min(self.per_minute, self.left + (now - self.filled) * a_second)
        self.filled = now
        if self.left < 1:
            return (1 - self.left) / a_second
        self.left -= 1
        return 0.0


class Keys:
    """The keys of a file. A change of it counts within LOOK_S seconds; what cannot be read keeps the old."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = Path(path), clock
        self._stamp = self._stat()
        self._keys = read_keys(self.path)
        self._looked = clock()

    def admit(self, authorization: str | None, counts: bool = True) -> str:
        """The name of the key in an Authorization header. Raises Problem: 401 for none or a wrong one, 429
        for one that has used its minute up, where the request `counts`."""
        self._look()
        scheme, _, secret = (authorization or "").strip().partition(" ")
        key = self._owner(secret.strip()) if scheme.lower() == _SCHEME else None
        if key is None:
            detail = "send a valid key: Authorization: Bearer KEY"
            raise Problem(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
        if counts and (wait := key.wait_s(self._clock())):
            detail = f"key {key.name}: more than {key.per_minute} searches a minute; wait"
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": str(int(wait) + 1)})
        return key.name

    def _owner(self, secret: str) -> Key | None:
        """All are compared, each in constant time: how long it takes tells nothing of them."""
        digest = _digest(secret)
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        return found[0] if found else None

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if (stamp := self._stat()) != self._stamp:
            self._stamp = stamp
            try:
                self._keys = _keeping(self._keys, read_keys(self.path))
                log.info("keys: read again, %d now", len(self._keys))
            except InputError as error:
                log.error("keys: the old ones stay: %s", error)

    def _stat(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size


def read_keys(path: Path) -> list[Key]:
    """The keys of a file. Raises InputError, naming file and line, for what cannot be used."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the file of keys cannot be read ({error})") from error
    keys = []
    for number, line in enumerate(lines, 1):
        if words := line.partition("#")[0].strip():
            if (match := _LINE.fullmatch(words)) is None:
                raise InputError(f"{path}: line {number} is not NAME SHA256 [SEARCHES A MINUTE]")
            rate = int(match["rate"]) if match["rate"] else None
            keys.append(Key(match["name"], match["digest"], rate))
    names = [key.name for key in keys]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{path}: {', '.join(sorted(twice))} stands there twice; give each key a name")
    return keys


def _keeping(old: list[Key], new: list[Key]) -> list[Key]:
    """The new keys; one that is as it was goes on with what is left of its minute."""
    return [next((key for key in old if key == fresh), fresh) for fresh in new]


def _digest(secret: str) -> str:
    # Keys are random and long: nothing is gained by a slow hash, which would be paid for in each request.
    return hashlib.sha256(secret.encode()).hexdigest()


def new_key(name: str, per_minute: int | None) -> tuple[str, str]:
    """A key, and the line of the file for it."""
    secret = secrets.token_urlsafe(KEY_BYTES)
    line = " ".join([name, _digest(secret), *([str(per_minute)] if per_minute else [])])
    if _LINE.fullmatch(line) is None:
        raise InputError(
            f"{name!r}, {per_minute}: a name is up to 64 of a-z, 0-9, _ . -; a rate is at least 1"
        )
    return secret, line


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        "serve.http.api_keys", description="A new key, and the line of the file for it."
    )
    parser.add_argument("name")
    parser.add_argument("--per-minute", type=int, help="searches a minute (default: no bound)")
    args = parser.parse_args()
    try:
        secret, line = new_key(args.name, args.per_minute)
    except InputError as error:
        parser.error(str(error))
    print(f"key, shown this once:      {secret}")
    print(f"line of the file of keys:  {line}")


if __name__ == "__main__":
    main()
