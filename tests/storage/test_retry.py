"""What is tried again and what is not."""

import errno

import pytest
from aiohttp import ClientResponseError, RequestInfo
from yarl import URL

from stbir.errors import InputError
from stbir.storage import retry
from stbir.storage.retry import ShortRead, patiently, transient


def answered(status: int) -> ClientResponseError:
    return ClientResponseError(RequestInfo(URL("http://x"), "GET", {}, URL("http://x")), (), status=status)  # type: ignore[arg-type]


def hidden(cause: Exception) -> InputError:
    error = InputError("out of reach")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (ShortRead("3 of 4"), True),
        (OSError(errno.EBUSY, "Slow Down"), True),
        (answered(503), True),
        (answered(429), True),
        (hidden(TimeoutError()), True),
        (answered(404), False),
        (answered(403), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (OSError(errno.EINVAL, "Bad Request"), False),
        (hidden(FileNotFoundError()), False),
        (ValueError("no such protocol"), False),
        (InputError("not a picture"), False),
    ],
)
def test_what_may_pass_by_itself(error: Exception, passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert transient(error) is passes
    monkeypatch.setattr(retry, "FIRST_WAIT", 1e-4)
    calls = []

    def fail() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        patiently(fail)
    assert len(calls) == (retry.TRIES if passes else 1)


def test_the_first_success_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 1e-4)
    answers = iter([TimeoutError(), ShortRead(), 7])

    def sometimes() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(sometimes) == 7
