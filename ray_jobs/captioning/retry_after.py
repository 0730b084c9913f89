"""The Retry-After header of chat endpoints (RFC 9110, 10.2.3)."""

from collections.abc import Mapping

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After header, at most six hours; None if it is missing or invalid."""
    try:
        return Retry().parse_retry_after(headers.get("retry-after", ""))
    except (InvalidHeader, ValueError, OverflowError):
        return None
