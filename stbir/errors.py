"""`InputError`, the exception for input that cannot be used, and `JobFailedError`."""

from typing import Any


class InputError(ValueError):
    """Invalid input. The message is one line that names the field or file and the remedy.

    Commands print it and exit with 2; the endpoint returns a 4xx response.
    """


class ImageTooLargeError(InputError):
    """An image has more pixels than may be decoded, or needs more memory than there is."""


class NoStrokeError(InputError):
    """A sketch is a valid image of one colour: nothing is drawn on it."""


class JobFailedError(Exception):
    """A job ended with an unacceptable result, e.g. too many photos in quarantine. Commands exit with 1.

    `summary` has the counts of the job.
    """

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary


class LockedError(InputError):
    """A live writer holds the lock of a folder."""
