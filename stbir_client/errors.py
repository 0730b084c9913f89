"""The errors of the client. Each message is one line."""


class StbirError(Exception):
    """Base class of all errors of this package."""


class InputError(StbirError):
    """Invalid input; nothing was sent. The message names the field and the remedy."""


class UnreachableError(StbirError):
    """No connection, or a connection that broke before the answer was complete."""


class DeadlineError(StbirError):
    """The deadline passed before the answer was complete."""


class AnswerError(StbirError):
    """The answer is not one of a stbir endpoint."""


class ProblemError(StbirError):
    """The endpoint returned an error; the fields are those of its problem details (RFC 9457).

    `retry_after`: seconds of the Retry-After header, if any.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, title, detail, request_id, retry_after)  # pickle calls it with all of them
        self.status, self.title, self.detail = status, title, detail
        self.request_id, self.retry_after = request_id, retry_after

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.title}{detail}{request}"
