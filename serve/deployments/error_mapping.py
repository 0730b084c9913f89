"""Error mapping: errors of Ray and of the replicas → problem details for the client."""

import logging
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from serve.deadline import DeadlineExceededError
from serve.problem import Problem
from stbir.errors import ImageTooLargeError, InputError, NoStrokeError

log = logging.getLogger(__name__)
# Status of an InputError by the field at the start of its message.
_FIELD_STATUS = {
    "sketch": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,  # a valid image header, but invalid image data
    "text": HTTPStatus.UNPROCESSABLE_ENTITY,
    "photo_id": HTTPStatus.NOT_FOUND,
    "hit": HTTPStatus.NOT_FOUND,
    "category": HTTPStatus.UNPROCESSABLE_ENTITY,
    "where": HTTPStatus.UNPROCESSABLE_ENTITY,
    "k": HTTPStatus.UNPROCESSABLE_ENTITY,
    "sketch_weight": HTTPStatus.UNPROCESSABLE_ENTITY,
    "without": HTTPStatus.UNPROCESSABLE_ENTITY,
    "like": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unlike": HTTPStatus.UNPROCESSABLE_ENTITY,
    "min_match": HTTPStatus.UNPROCESSABLE_ENTITY,
}


async def map_errors(response: Awaitable[Any], retry_after_s: int) -> Any:
    """The result of `response`. Raises its error as `to_problem` maps it."""
    try:
        return await response
    except Exception as error:
        if (problem := to_problem(error, retry_after_s)) is error:
            raise
        raise problem from error


def to_problem(error: Exception, retry_after_s: int) -> Exception:
    """The Problem of an error; an unexpected error is returned unchanged and answers 500."""
    match error:
        case BackPressureError():
            return at_capacity(retry_after_s)
        case RayActorError() | ObjectLostError() | WorkerCrashedError():
            problem = unavailable("a replica of the service died; try again", retry_after_s)
            problem.replica_died = True
            return problem
        case DeploymentUnavailableError() | RayServeException():
            return unavailable("a replica of the service is starting; try again", retry_after_s)
        case DeadlineExceededError():
            return Problem(HTTPStatus.GATEWAY_TIMEOUT, "no answer before the deadline; try again")
        case ImageTooLargeError():
            return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _detail(error))
        case NoStrokeError():
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, _detail(error))
        case InputError():
            return _input_problem(error, retry_after_s)
        case OSError() | MemoryError():
            detail = "the service is out of memory, or its storage does not answer; try again"
            return unavailable(detail, retry_after_s)
    return error


def at_capacity(retry_after_s: int) -> Problem:
    """429: a queue is full."""
    detail = f"the service is at capacity; try again in {retry_after_s} s"
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": str(retry_after_s)})


def _input_problem(error: InputError, retry_after_s: int) -> Problem:
    """An InputError starts with its field, or with an artifact of the service that clients may not see."""
    detail = _detail(error)
    status = _FIELD_STATUS.get(detail.partition(":")[0].partition(".")[0])
    if status is None:
        log.error("%s", detail)
        return unavailable("the gallery cannot be opened; see the server's log", retry_after_s)
    return Problem(status, detail)


def _detail(error: Exception) -> str:
    return str(error.cause if isinstance(error, RayTaskError) else error)


def unavailable(detail: str, retry_after_s: int) -> Problem:
    """503: the service cannot answer now."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(retry_after_s)})
