"""What can go wrong, one class for each thing a caller may want to do about it. Messages are one line."""


class StbirError(Exception):
    """Any error of this package."""


class InputError(StbirError):
    """What was given cannot be used; nothing was sent. Says which field, and the remedy."""


class UnreachableError(StbirError):
    """No connection, or one that broke before the answer was whole."""


class DeadlineError(StbirError):
    """The caller's deadline passed first."""


class AnswerError(StbirError):
    """An answer came that is not one of a stbir endpoint."""


class ProblemError(StbirError):
    """The service said no; the fields are those of its problem details (RFC 9457).

    `retry_after`: the seconds it asks to be left alone, where it does.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, title, detail, request_id, retry_after)  # all of them: it can be pickled
        self.status, self.title, self.detail = status, title, detail
        self.request_id, self.retry_after = request_id, retry_after

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.title}{detail}{request}"
