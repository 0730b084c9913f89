"""Retry policy: whether to retry a failed attempt, and after how long. Pure functions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from stbir_client.errors import ProblemError, StbirError, UnreachableError

BASE_DELAY_S, MAX_DELAY_S = 0.25, 8.0
RETRYABLE_STATUSES = frozenset({429, 503})


def retry_delay(
    error: StbirError, attempt: int, retries: int, remaining_s: float, jitter: float
) -> float | None:
    """Seconds to wait before the next attempt; None for no further attempt.

    attempt: number of the failed attempt, from 0. remaining_s: seconds until the deadline; a delay that
    would reach it gives None. jitter: random, from [0, 1), so that rejected callers do not retry at once.
    """
    if attempt >= retries or not is_retryable(error):
        return None
    after = error.retry_after if isinstance(error, ProblemError) else None
    # The backoff is added to a Retry-After, as all rejected callers get the same one.
    delay_s = (after or 0.0) + backoff(attempt, jitter)
    return delay_s if delay_s < remaining_s else None


def is_retryable(error: StbirError) -> bool:
    """Whether the error may be temporary. Searches are idempotent, so a retry is safe."""
    if isinstance(error, ProblemError):
        return error.status in RETRYABLE_STATUSES
    return isinstance(error, UnreachableError)


def backoff(attempt: int, jitter: float) -> float:
    """Seconds: exponential up to MAX_DELAY_S, of which the jitter removes up to half."""
    max_s = min(MAX_DELAY_S, BASE_DELAY_S * 2.0 ** min(attempt, 32))
    return max_s * (1 + jitter) / 2


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), at least 0; None if it is missing or invalid.

    A date is relative to the `Date` header if there is one, so clocks may differ; else to `now`.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    retry_at = _date(value)
    if retry_at is None:
        return None
    sent_at = _date(headers.get("date", "")) or now
    return max(0.0, (retry_at - sent_at).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
