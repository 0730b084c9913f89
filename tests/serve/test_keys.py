"""Keys let in who has one, as often as it may, and change without a restart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.http.api_keys import Key, Keys, new_key, read_keys
from serve.problem import Problem
from stbir.errors import InputError
from tests.conftest import ROOT


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def written(path: Path, *lines: str) -> str:
    path.write_text("# who may ask\n\n" + "\n".join(lines) + "\n")
    return str(path)


def refusal(keys: Keys, authorization: str | None) -> Problem:
    with pytest.raises(Problem) as refused:
        keys.admit(authorization)
    return refused.value


def test_each_key_lets_in_under_its_name(tmp_path: Path) -> None:
    (first, one), (second, other) = new_key("shop", None), new_key("lab.2", 60)
    keys = Keys(written(tmp_path / "keys", f"{one}  # the shop", other))
    assert keys.admit(f"Bearer {first}") == "shop"
    assert keys.admit(f"bearer  {second} ") == "lab.2"
    assert first not in (tmp_path / "keys").read_text()


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {}", "{}", "Bearer {}x"]
)
def test_nothing_else_does(tmp_path: Path, given: str | None) -> None:
    secret, line = new_key("shop", None)
    refused = refusal(Keys(written(tmp_path / "keys", line)), given and given.format(secret))
    assert refused.status == 401
    assert refused.headers == {"WWW-Authenticate": "Bearer"}
    assert secret not in str(refused)


def test_a_key_has_its_minute_and_then_waits(tmp_path: Path) -> None:
    clock = Clock()
    secret, line = new_key("shop", 30)
    keys = Keys(written(tmp_path / "keys", line), clock)
    for _ in range(30):
        keys.admit(f"Bearer {secret}")
    refused = refusal(keys, f"Bearer {secret}")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "3")  # one place in two seconds
    clock.now += 2
    keys.admit(f"Bearer {secret}")
    assert refusal(keys, f"Bearer {secret}").status == 429


@given(st.integers(1, 600), st.lists(st.floats(0, 30), max_size=200))
def test_no_stretch_of_time_has_more_than_its_share(per_minute: int, pauses: list[float]) -> None:
    key, now, admitted = Key("k", "", per_minute), 0.0, list[float]()
    for pause in pauses:
        now += pause
        if key.wait_s(now) == 0:
            admitted.append(now)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            allowed = per_minute + (admitted[last] - admitted[first]) * per_minute / 60
            assert last - first + 1 <= allowed + 1e-6


def test_the_file_is_read_again_when_it_changes_and_a_broken_one_keeps_the_old(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keys"
    (first, one), (second, other) = new_key("old", 10), new_key("new", None)
    keys = Keys(written(path, one), clock)
    for _ in range(10):
        keys.admit(f"Bearer {first}")

    written(path, one, other)
    clock.now += 2
    assert keys.admit(f"Bearer {second}") == "new"
    refused = refusal(keys, f"Bearer {first}")  # it did not get another minute by that; two seconds gave none
    assert refused.status == 429

    path.write_text("not a line of keys\n")
    clock.now += 2
    assert keys.admit(f"Bearer {second}") == "new"
    written(path, one)
    os.utime(path, ns=(1, 1))
    clock.now += 2
    assert refusal(keys, f"Bearer {second}").status == 401


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shop abc\n", "line 1 is not NAME SHA256"),
        (f"\nshop {'0' * 64} 0\n", "line 2 is not"),
        (f"a {'0' * 64}\na {'1' * 64}\n", "a stands there twice"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match=says):
        read_keys(tmp_path / "keys")
    with pytest.raises(InputError, match="cannot be read"):
        Keys(str(tmp_path / "nowhere"))


def test_the_command_makes_a_key_that_lets_in(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serve.http.api_keys", "shop", "--per-minute", "5"]
    printed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    secret, line = (words.split(":", 1)[1].strip() for words in printed)
    assert Keys(written(tmp_path / "keys", line)).admit(f"Bearer {secret}") == "shop"
    wrong = subprocess.run([*command[:3], "two words"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "a name is up to 64" in wrong.stderr
