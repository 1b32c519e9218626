"""The exceptions of the client. No message contains the API key."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from feedrank.api.client.responses import EventsResult


class ClientError(Exception):
    """Base class of all client errors."""

    unacknowledged: tuple[dict[str, Any], ...] = ()
    """Set by `record_events`: the events that were not acknowledged, with the ids and timestamps that they were given.
    Sent again, each counts once, even if it had arrived."""
    partial_result: EventsResult | None = None
    """Set by `record_events`: the result of the events before those."""


class Unreachable(ClientError):
    """Raised when no response arrives."""

    def __init__(self, message: str, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        """True if the service may have received and processed the request."""


class BadAnswer(ClientError):
    """Raised for a response that is not from feedrank."""


class ApiError(ClientError):
    """Raised for an error response with a problem document (RFC 9457)."""

    def __init__(
        self,
        message: str,
        status: int = 0,
        title: str = "",
        detail: str = "",
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        # all arguments but the message have defaults, because unpickling passes the message only
        super().__init__(message)
        self.status = status
        self.title = title
        self.detail = detail
        self.field = field
        """Path of the invalid field in the body; None if the error is not about one field."""
        self.retry_after_s = retry_after_s
        """Seconds to wait before a retry, as the service asks in `Retry-After`; None: it asks for none."""


class BadRequest(ApiError):
    """400: the request is invalid; `field` names the invalid field."""


class Unauthorized(ApiError):
    """401: the API key is missing, unknown or expired."""


class Forbidden(ApiError):
    """403: the API key lacks the scope."""


class NotFound(ApiError):
    """404: the resource does not exist."""


class Conflict(ApiError):
    """409: the request conflicts with the current state."""


class TooManyRequests(ApiError):
    """429: too many requests with this key."""


class Unavailable(ApiError):
    """503: the service is temporarily unavailable; it did nothing."""


_CLASSES: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: TooManyRequests,
    503: Unavailable,
}
_ADVICE = {
    401: "pass a valid key as Client(url, key)",
    403: "use a key with that scope",
    413: "send less at once",
    429: "call less often, or raise [serve] rate_limit",
    500: "see the service's log",
    502: "check whether the service behind the gateway runs",
    503: "try again later",
    504: "check whether the service behind the gateway is too slow",
}


def error_from_problem(request_line: str, status: int, body: dict[str, Any], retry_after_s: float | None) -> ApiError:
    """Build the error of a problem document; `request_line` is the method and path, for the message."""
    title, detail, field = (body.get(name) for name in ("title", "detail", "field"))
    title, detail = str(title or status_phrase(status)), str(detail or "no detail was given")
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    return _CLASSES.get(status, ApiError)(
        f"{request_line}: {status} {title}: {detail}{advice}",
        status,
        title,
        detail,
        field if isinstance(field, str) else None,
        retry_after_s,
    )


def status_phrase(status: int) -> str:
    """Return the reason phrase of an HTTP status code."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"
