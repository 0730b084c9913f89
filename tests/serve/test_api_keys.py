"""API keys: authentication, rate limits, and reload of the file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.http.api_keys import ApiKey, ApiKeys, new_key, read_keys
from serve.http.auth import EXPLANATION_COST, THUMBNAIL_COST
from serve.problem import Problem
from stbir.errors import InputError
from tests.conftest import ROOT


class FakeClock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def write_keys(path: Path, *lines: str) -> str:
    path.write_text("# clients\n\n" + "\n".join(lines) + "\n")
    return str(path)


def use(keys: ApiKeys, authorization: str | None) -> str:
    """The name of the key of a search, which is charged for it."""
    key = keys.authenticate(authorization)
    keys.charge(key)
    return key.name


def rejection(keys: ApiKeys, authorization: str | None) -> Problem:
    with pytest.raises(Problem) as error:
        use(keys, authorization)
    return error.value


def test_valid_key_returns_its_name(tmp_path: Path) -> None:
    (shop_secret, shop_line), (lab_secret, lab_line) = new_key("shop", None), new_key("lab.2", 60)
    keys = ApiKeys(write_keys(tmp_path / "keys", f"{shop_line}  # the shop", lab_line))
    assert use(keys, f"Bearer {shop_secret}") == "shop"
    assert use(keys, f"bearer  {lab_secret} ") == "lab.2"
    assert shop_secret not in (tmp_path / "keys").read_text()


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {}", "{}", "Bearer {}x"]
)
def test_any_other_header_is_unauthorized(tmp_path: Path, header: str | None) -> None:
    secret, line = new_key("shop", None)
    problem = rejection(ApiKeys(write_keys(tmp_path / "keys", line)), header and header.format(secret))
    assert problem.status == 401
    assert problem.headers == {"WWW-Authenticate": "Bearer"}
    assert secret not in str(problem)


def test_rate_limit_gives_429_until_a_token_refills(tmp_path: Path) -> None:
    clock = FakeClock()
    secret, line = new_key("shop", 30)
    keys = ApiKeys(write_keys(tmp_path / "keys", line), clock)
    for _ in range(30):
        use(keys, f"Bearer {secret}")
    problem = rejection(keys, f"Bearer {secret}")
    assert (problem.status, problem.headers["Retry-After"]) == (429, "3")  # one token in two seconds
    clock.now_s += 2
    use(keys, f"Bearer {secret}")
    assert rejection(keys, f"Bearer {secret}").status == 429


def test_an_explanation_costs_ten_searches_or_all_of_a_minute() -> None:
    few, many = ApiKey("few", "", 3), ApiKey("many", "", 15)
    assert [key.acquire(0.0, EXPLANATION_COST) for key in (few, many)] == [0, 0]
    assert few.acquire(0.0) > 0
    assert [many.acquire(0.0) for _ in range(5)] == [0] * 5
    assert many.acquire(0.0) > 0


def test_hundred_thumbnails_cost_one_search() -> None:
    key = ApiKey("k", "", per_minute=2)
    assert key.acquire(0.0) == 0
    assert [key.acquire(0.0, THUMBNAIL_COST) for _ in range(99)] == [0] * 99
    key.acquire(0.0, THUMBNAIL_COST)
    assert key.acquire(0.0, THUMBNAIL_COST) > 0


@given(st.integers(1, 600), st.lists(st.floats(0, 30), max_size=200))
def test_no_interval_exceeds_the_rate_limit(per_minute: int, pauses_s: list[float]) -> None:
    key, now_s, admitted = ApiKey("k", "", per_minute), 0.0, list[float]()
    for pause_s in pauses_s:
        now_s += pause_s
        if key.acquire(now_s) == 0:
            admitted.append(now_s)
    for start in range(len(admitted)):
        for end in range(start, len(admitted)):
            limit = per_minute + (admitted[end] - admitted[start]) * per_minute / 60
            assert end - start + 1 <= limit + 1e-6


def test_changed_file_is_reloaded_and_an_invalid_one_keeps_the_previous_keys(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "keys"
    (old_secret, old_line), (new_secret, new_line) = new_key("old", 10), new_key("new", None)
    keys = ApiKeys(write_keys(path, old_line), clock)
    for _ in range(10):
        use(keys, f"Bearer {old_secret}")

    write_keys(path, old_line, new_line)
    clock.now_s += 2
    assert use(keys, f"Bearer {new_secret}") == "new"
    assert rejection(keys, f"Bearer {old_secret}").status == 429  # the reload keeps its empty bucket

    path.write_text("not a line of keys\n")
    clock.now_s += 2
    assert use(keys, f"Bearer {new_secret}") == "new"
    write_keys(path, old_line)
    os.utime(path, ns=(1, 1))
    clock.now_s += 2
    assert rejection(keys, f"Bearer {new_secret}").status == 401


def test_removed_file_revokes_all_keys(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "keys"
    secret, line = new_key("shop", None)
    keys = ApiKeys(write_keys(path, line), clock)
    path.unlink()
    clock.now_s += 2
    assert rejection(keys, f"Bearer {secret}").status == 401
    clock.now_s += 2
    assert rejection(keys, f"Bearer {secret}").status == 401
    write_keys(path, line)
    clock.now_s += 2
    assert use(keys, f"Bearer {secret}") == "shop"


def test_replaced_file_of_equal_time_and_size_is_reloaded(tmp_path: Path) -> None:
    """As by `cp -p` or a secret store that sets a fixed time."""
    clock, path = FakeClock(), tmp_path / "keys"
    (old_secret, old_line), (new_secret, new_line) = new_key("shop", None), new_key("shop", None)
    write_keys(path, old_line)
    os.utime(path, ns=(1, 1))
    keys = ApiKeys(str(path), clock)
    write_keys(tmp_path / "new", new_line)
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").replace(path)
    clock.now_s += 2
    assert use(keys, f"Bearer {new_secret}") == "shop"
    assert rejection(keys, f"Bearer {old_secret}").status == 401


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shop abc\n", "line 1 is not NAME SHA256"),
        (f"\nshop {'0' * 64} 0\n", "line 2 is not"),
        (f"a {'0' * 64}\na {'1' * 64}\n", "duplicate name a"),
    ],
)
def test_invalid_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match=message):
        read_keys(tmp_path / "keys")
    with pytest.raises(InputError, match="cannot be read"):
        ApiKeys(str(tmp_path / "nowhere"))


def test_command_prints_a_valid_key_and_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serve.http.api_keys", "shop", "--per-minute", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    secret, line = (printed.split(":", 1)[1].strip() for printed in done.stdout.splitlines())
    assert use(ApiKeys(write_keys(tmp_path / "keys", line)), f"Bearer {secret}") == "shop"
    wrong = subprocess.run([*command[:3], "two words"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "a name is up to 64" in wrong.stderr
