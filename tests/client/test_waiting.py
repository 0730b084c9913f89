"""The retry policy, as properties of pure functions."""

import string
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir_client import AnswerError, DeadlineError, InputError, ProblemError, StbirError, UnreachableError
from stbir_client.waiting import BASE_DELAY_S, MAX_DELAY_S, backoff, parse_retry_after, retry_delay

NOW = datetime(2026, 5, 17, 12, 0, 0, tzinfo=UTC)
seconds = st.integers(-(10**6), 10**6)
jitters = st.floats(0, 1, exclude_max=True)
temporary_errors = st.builds(
    ProblemError, st.sampled_from([429, 503]), st.just("Full"), retry_after=st.none() | st.floats(0, 1e9)
) | st.builds(UnreachableError, st.just("cut"))
permanent_errors = st.builds(
    ProblemError, st.integers(300, 599).filter(lambda s: s not in (429, 503)), st.just("No")
) | (st.sampled_from([AnswerError("not JSON"), DeadlineError("late"), InputError("k: is below 1")]))


def date(time: datetime) -> str:
    return format_datetime(time, usegmt=True)


@given(st.integers(0, 10**9))
def test_retry_after_in_seconds(value: int) -> None:
    assert parse_retry_after({"retry-after": str(value)}, NOW) == value


@given(seconds)
def test_retry_after_as_a_date_is_relative_to_now(ahead: int) -> None:
    headers = {"retry-after": date(NOW + timedelta(seconds=ahead))}
    assert parse_retry_after(headers, NOW) == max(0, ahead)


@given(seconds, seconds)
def test_retry_after_ignores_clock_skew(ahead: int, skew: int) -> None:
    server_time = NOW + timedelta(seconds=skew)
    headers = {"retry-after": date(server_time + timedelta(seconds=ahead)), "date": date(server_time)}
    assert parse_retry_after(headers, NOW) == max(0, ahead)


def test_obsolete_date_formats() -> None:
    dates = "Sunday, 17-May-26 12:00:09 GMT", "Sun May 17 12:00:09 2026", "Sun, 17 May 2026 12:00:09 -0000"
    assert all(parse_retry_after({"retry-after": date}, NOW) == 9 for date in dates)


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "1.5", "1e3", "²", "١", "Mon, 99 May 2026 12:00:00 GMT", "0x10"]
)
def test_invalid_or_missing_retry_after(text: str) -> None:
    assert parse_retry_after({"retry-after": text}, NOW) is None
    assert parse_retry_after({}, NOW) is None


@given(st.text() | st.text(string.digits + string.ascii_letters + " ,:-+"), st.text(max_size=40))
def test_any_header_gives_none_or_a_nonnegative_delay(value: str, sent: str) -> None:
    delay = parse_retry_after({"retry-after": value, "date": sent}, NOW)
    assert delay is None or delay >= 0


def test_backoff_is_exponential_up_to_a_maximum() -> None:
    assert [backoff(attempt, 0) * 2 for attempt in range(7)] == [0.25, 0.5, 1, 2, 4, 8, 8]


@given(st.integers(0, 10**9), jitters)
def test_jitter_removes_up_to_half_of_the_backoff(attempt: int, jitter: float) -> None:
    max_s = min(MAX_DELAY_S, BASE_DELAY_S * 2 ** min(attempt, 50))
    assert max_s / 2 <= backoff(attempt, jitter) <= max_s


@given(temporary_errors, st.integers(0, 20), st.integers(0, 20), st.floats(-1, 1e6), jitters)
def test_delay_respects_retry_after_and_the_deadline(
    error: StbirError, attempt: int, retries: int, remaining_s: float, jitter: float
) -> None:
    delay = retry_delay(error, attempt, retries, remaining_s, jitter)
    retry_after = getattr(error, "retry_after", None)
    if delay is not None:
        assert attempt < retries
        assert 0 <= delay < remaining_s
        assert delay >= (retry_after or 0)
    elif attempt < retries:  # only because of the deadline
        assert (retry_after or 0) + backoff(attempt, jitter) >= remaining_s


@given(st.integers(0, 4), jitters, st.sampled_from([None, 0.0, 1.0]))
def test_delays_grow_with_and_without_retry_after(attempt: int, jitter: float, after: float | None) -> None:
    """A server says 1 to everybody: callers that all come back after a second would be rejected for ever."""
    error = ProblemError(429, "Full", retry_after=after)
    delay, next_delay = (retry_delay(error, n, 9, 1e9, jitter) for n in (attempt, attempt + 1))
    assert delay is not None
    assert next_delay is not None
    assert next_delay > delay >= (after or 0)
    spread = (retry_delay(error, attempt, 9, 1e9, 0.99) or 0) - (retry_delay(error, attempt, 9, 1e9, 0) or 0)
    assert spread >= 0.4 * BASE_DELAY_S * 2**attempt


@given(permanent_errors, jitters)
def test_permanent_errors_are_not_retried(error: StbirError, jitter: float) -> None:
    assert retry_delay(error, 0, 10, 1e9, jitter) is None


@given(
    st.lists(st.tuples(temporary_errors, jitters, st.floats(0, 3)), min_size=11, max_size=11),
    st.integers(0, 9),
    st.floats(0.1, 60),
)
def test_retries_end_before_the_deadline(
    failures: list[tuple[StbirError, float, float]], retries: int, deadline: float
) -> None:
    clock, attempts = 0.0, 0
    for attempt, (error, jitter, duration) in enumerate(failures):
        attempts, clock = attempts + 1, clock + duration
        delay = retry_delay(error, attempt, retries, deadline - clock, jitter)
        if delay is None:
            break
        clock += delay
        assert clock < deadline
    assert attempts <= retries + 1
