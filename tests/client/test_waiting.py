"""When the clients try again: laws of pure functions."""

import string
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir_client.errors import (
    AnswerError,
    DeadlineError,
    InputError,
    ProblemError,
    StbirError,
    UnreachableError,
)
from stbir_client.waiting import FIRST_S, LONGEST_S, backoff, pause, retry_after

NOW = datetime(2026, 5, 17, 12, 0, 0, tzinfo=UTC)
seconds = st.integers(-(10**6), 10**6)
dice = st.floats(0, 1, exclude_max=True)
asked = st.none() | st.floats(0, 1e9)
passing = st.builds(
    ProblemError, st.sampled_from([429, 503]), st.just("Full"), retry_after=asked
) | st.builds(UnreachableError, st.just("cut"))
final = st.builds(
    ProblemError, st.integers(300, 599).filter(lambda s: s not in (429, 503)), st.just("No")
) | (st.sampled_from([AnswerError("not JSON"), DeadlineError("late"), InputError("k: is below 1")]))


def date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


@given(st.integers(0, 10**9))
def test_retry_after_in_seconds(value: int) -> None:
    assert retry_after({"retry-after": str(value)}, NOW) == value


@given(seconds)
def test_retry_after_as_a_date_counts_from_now_and_is_never_past(ahead: int) -> None:
    headers = {"retry-after": date(NOW + timedelta(seconds=ahead))}
    assert retry_after(headers, NOW) == max(0, ahead)


@given(seconds, seconds)
def test_the_clock_of_the_service_does_not_matter(ahead: int, wrong: int) -> None:
    theirs = NOW + timedelta(seconds=wrong)
    headers = {"retry-after": date(theirs + timedelta(seconds=ahead)), "date": date(theirs)}
    assert retry_after(headers, NOW) == max(0, ahead)


def test_the_old_forms_of_a_date_are_read() -> None:
    for text in (
        "Sunday, 17-May-26 12:00:09 GMT",
        "Sun May 17 12:00:09 2026",
        "Sun, 17 May 2026 12:00:09 -0000",
    ):
        assert retry_after({"retry-after": text}, NOW) == 9


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "1.5", "1e3", "²", "١", "Mon, 99 May 2026 12:00:00 GMT", "0x10"]
)
def test_what_says_nothing(text: str) -> None:
    assert retry_after({"retry-after": text}, NOW) is None
    assert retry_after({}, NOW) is None


@given(st.text() | st.text(string.digits + string.ascii_letters + " ,:-+"), st.text(max_size=40))
def test_no_header_can_harm(value: str, sent: str) -> None:
    wait = retry_after({"retry-after": value, "date": sent}, NOW)
    assert wait is None or wait >= 0


def test_backoff_doubles_up_to_a_cap() -> None:
    assert [backoff(attempt, 0) * 2 for attempt in range(7)] == [0.25, 0.5, 1, 2, 4, 8, 8]


@given(st.integers(0, 10**9), dice)
def test_dice_take_at_most_half_of_a_backoff(attempt: int, roll: float) -> None:
    longest = min(LONGEST_S, FIRST_S * 2 ** min(attempt, 50))
    assert longest / 2 <= backoff(attempt, roll) <= longest


@given(passing, st.integers(0, 20), st.integers(0, 20), st.floats(-1, 1e6), dice)
def test_a_wait_ends_before_the_deadline_and_not_before_it_was_asked_to(
    error: StbirError, attempt: int, retries: int, left: float, roll: float
) -> None:
    wait = pause(error, attempt, retries, left, roll)
    least = getattr(error, "retry_after", None)
    if wait is not None:
        assert attempt < retries
        assert 0 <= wait < left
        assert wait >= (least or 0)
    elif attempt < retries:  # then only for want of time
        assert (backoff(attempt, roll) if least is None else least + FIRST_S) >= left


@given(final, dice)
def test_what_will_not_pass_is_not_tried_again(error: StbirError, roll: float) -> None:
    assert pause(error, 0, 10, 1e9, roll) is None


@given(
    st.lists(st.tuples(passing, dice, st.floats(0, 3)), min_size=11, max_size=11),
    st.integers(0, 9),
    st.floats(0.1, 60),
)
def test_a_service_that_never_recovers_is_left_in_time(
    failures: list[tuple[StbirError, float, float]], retries: int, deadline: float
) -> None:
    clock, attempts = 0.0, 0
    for attempt, (error, roll, took) in enumerate(failures):
        attempts, clock = attempts + 1, clock + took
        wait = pause(error, attempt, retries, deadline - clock, roll)
        if wait is None:
            break
        clock += wait
        assert clock < deadline
    assert attempts <= retries + 1
