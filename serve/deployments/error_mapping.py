"""What a client should hear of what went wrong behind the ingress: Ray's errors and our own, as problems."""

from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from serve.deadline import DeadlineExceededError
from serve.problem import Problem
from stbir.errors import InputError

_STATUS_OF = {
    "sketch": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,  # its header was a picture's, the rest is not
    "photo_id": HTTPStatus.NOT_FOUND,
    "category": HTTPStatus.UNPROCESSABLE_ENTITY,
    "where": HTTPStatus.UNPROCESSABLE_ENTITY,
    "k": HTTPStatus.UNPROCESSABLE_ENTITY,
    "sketch_weight": HTTPStatus.UNPROCESSABLE_ENTITY,
}


async def translated(response: Awaitable[Any], retry_after_s: int) -> Any:
    """The response; raises its errors as `problem_of` gives them."""
    try:
        return await response
    except Exception as error:
        if (problem := problem_of(error, retry_after_s)) is error:
            raise
        raise problem from error


def problem_of(error: Exception, retry_after_s: int) -> Exception:
    """What the client should hear of an error; one that is a fault of ours stays as it is."""
    match error:
        case BackPressureError():
            return full(retry_after_s)
        case RayActorError() | ObjectLostError() | WorkerCrashedError():
            problem = unavailable("a part of the service was lost; try again", retry_after_s)
            problem.lost = True
            return problem
        case DeploymentUnavailableError() | RayServeException():
            return unavailable("a part of the service is starting; try again", retry_after_s)
        case DeadlineExceededError():
            return Problem(HTTPStatus.GATEWAY_TIMEOUT, "no answer in time; try again")
        case InputError():
            return _input_problem(error, retry_after_s)
    return error


def full(retry_after_s: int) -> Problem:
    """All places to wait in are taken."""
    detail = f"all places are taken; try again in {retry_after_s} s"
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, _later(retry_after_s))


def _input_problem(error: InputError, retry_after_s: int) -> Problem:
    """InputError names first what it is about: a field of the request, or what the service started with."""
    cause = str(error.cause if isinstance(error, RayTaskError) else error)
    status = _STATUS_OF.get(cause.partition(":")[0].partition(".")[0])
    if status is None:
        return unavailable("the gallery cannot be opened; the server's log says why", retry_after_s)
    return Problem(status, cause)


def unavailable(detail: str, retry_after_s: int) -> Problem:
    """Nobody can be answered now, for the reason in `detail`."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, _later(retry_after_s))


def _later(retry_after_s: int) -> dict[str, str]:
    return {"Retry-After": str(retry_after_s)}
