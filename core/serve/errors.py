"""What a request can be answered with instead of a result."""

from __future__ import annotations


class ServeError(Exception):
    """A request that is not answered: `status` as HTTP has it, the message for the caller."""

    status = 500
    code = "internal"  # a word for metrics and logs

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BadRequest(ServeError):
    """The request is not what the model takes; the message names the input."""

    status, code = 400, "bad_request"


class Unauthorized(ServeError):
    """No token, or a wrong one."""

    status, code = 401, "unauthorized"


class NotFound(ServeError):
    """No such model or version."""

    status, code = 404, "not_found"


class TooLarge(ServeError):
    """More bytes, or more rows, than are taken at once."""

    status, code = 413, "too_large"


class Overloaded(ServeError):
    """The queue is full, the deadline cannot be met, or the tenant's rate is used up."""

    status, code = 429, "overloaded"


class Cancelled(ServeError):
    """The caller went away."""

    status, code = 499, "cancelled"


class NotReady(ServeError):
    """The service starts or stops, or the model is not loaded."""

    status, code = 503, "not_ready"


class WorkerLost(ServeError):
    """The worker died under the request, and so did the one that tried again."""

    status, code = 503, "worker_lost"


class DeadlineExceeded(ServeError):
    """The deadline passed before there was an answer."""

    status, code = 504, "deadline"
