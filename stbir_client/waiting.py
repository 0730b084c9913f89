"""When to try again, and after how long: pure functions of what happened, the time left and a dice roll."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from stbir_client.errors import ProblemError, StbirError, UnreachableError

FIRST_S, LONGEST_S = 0.25, 8.0
FULL_OR_STARTING = frozenset({429, 503})


def pause(error: StbirError, attempt: int, retries: int, left_s: float, dice: float) -> float | None:
    """Seconds to wait before the next attempt; None where there should be none.

    attempt: those that failed before this one, from 0. left_s: until the deadline; a wait that would
    reach it is not begun. dice: from [0, 1), so that callers refused together do not return together.
    """
    if attempt >= retries or not may_pass(error):
        return None
    asked = error.retry_after if isinstance(error, ProblemError) else None
    wait = backoff(attempt, dice) if asked is None else asked + dice * FIRST_S
    return wait if wait < left_s else None


def may_pass(error: StbirError) -> bool:
    """Whether the same call may succeed a moment later. A search changes nothing, so it may be repeated."""
    if isinstance(error, ProblemError):
        return error.status in FULL_OR_STARTING
    return isinstance(error, UnreachableError)


def backoff(attempt: int, dice: float) -> float:
    """Seconds: doubled each time up to a cap, of which the dice take up to half."""
    longest = min(LONGEST_S, FIRST_S * 2.0 ** min(attempt, 32))
    return longest * (1 + dice) / 2


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a Retry-After asks for (RFC 9110, 10.2.3), never negative; None without a readable one.

    A date counts from the answer's own `Date` where it has one, so that clocks may differ; else from `now`.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    until = _date(value)
    if until is None:
        return None
    sent = _date(headers.get("date", "")) or now
    return max(0.0, (until - sent).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
