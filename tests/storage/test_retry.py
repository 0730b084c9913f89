"""Which errors are retried, how often, and how long `with_retries` waits."""

import errno

import pytest
from aiohttp import ClientResponseError, RequestInfo
from yarl import URL

from stbir.errors import InputError
from stbir.storage import retry
from stbir.storage.retry import ShortReadError, is_transient, with_retries


def http_error(status: int) -> ClientResponseError:
    return ClientResponseError(RequestInfo(URL("http://x"), "GET", {}, URL("http://x")), (), status=status)  # type: ignore[arg-type]


def wrapped(cause: Exception) -> InputError:
    error = InputError("unreachable")
    error.__cause__ = cause
    return error


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each wait, which tenacity only records."""
    recorded: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", recorded.append)
    return recorded


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (ShortReadError("3 of 4"), True),
        (OSError(errno.EBUSY, "Slow Down"), True),
        (http_error(503), True),
        (http_error(429), True),
        (wrapped(TimeoutError()), True),
        (http_error(404), False),
        (http_error(403), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (OSError(errno.EINVAL, "Bad Request"), False),
        (wrapped(FileNotFoundError()), False),
        (ValueError("no such protocol"), False),
        (InputError("not an image"), False),
    ],
)
def test_only_transient_errors_are_retried(error: Exception, transient: bool, waits: list[float]) -> None:
    assert is_transient(error) is transient
    calls = []

    def fail() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)) as raised:
        with_retries(fail)
    assert raised.value is error
    assert len(calls) == (retry.MAX_ATTEMPTS if transient else 1)
    assert len(waits) == len(calls) - 1


def test_waits_double_with_jitter(waits: list[float]) -> None:
    def fail() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        with_retries(fail)
    base = [retry.INITIAL_WAIT_S * 2**attempt for attempt in range(retry.MAX_ATTEMPTS - 1)]
    assert all(low <= wait <= low + retry.INITIAL_WAIT_S for low, wait in zip(base, waits, strict=True))


def test_the_result_of_the_first_success_is_returned(waits: list[float]) -> None:
    results = iter([TimeoutError(), ShortReadError(), 7])

    def fail_twice() -> int:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    assert with_retries(fail_twice) == 7
    assert len(waits) == 2
