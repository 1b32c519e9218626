"""What can go wrong with a call. No message holds the API key."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from api.client.answers import Taken


class ClientError(Exception):
    """A call that did not come to a good end."""

    unsent: tuple[dict[str, Any], ...] = ()
    """From `record`: the events that were not acknowledged, with the ids and times that they were given. Recorded once
    more, each counts once, even where it had arrived."""
    taken: Taken | None = None
    """From `record`: what came of the events before those."""


class Unreachable(ClientError):
    """No answer came."""

    def __init__(self, message: str, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        """Whether the service may have got the request, and done what it asks."""


class BadAnswer(ClientError):
    """An answer came that is not the service's."""


class ApiError(ClientError):
    """The service refused, or failed: a problem document (RFC 9457)."""

    def __init__(
        self,
        message: str,
        status: int = 0,
        title: str = "",
        detail: str = "",
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        # everything has a default, so that a pickled one can be read: that is done with the message alone
        super().__init__(message)
        self.status = status
        self.title = title
        self.detail = detail
        self.field = field
        """Where in the body the fault is."""
        self.retry_after_s = retry_after_s
        """Seconds after which the service would like to be asked again, where it says so."""


class BadRequest(ApiError):
    """400: the request is wrong, and `field` says where."""


class Unauthorized(ApiError):
    """401: the API key is missing, unknown or out of date."""


class Forbidden(ApiError):
    """403: the API key has not the scope."""


class NotFound(ApiError):
    """404: there is no such thing."""


class Conflict(ApiError):
    """409: it can't be done as things are."""


class TooManyRequests(ApiError):
    """429: too many requests with this key."""


class Unavailable(ApiError):
    """503: not now; nothing was done."""


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
    502: "see whether the service behind the gateway runs",
    503: "try again later",
    504: "see whether the service behind the gateway is too slow",
}


def of_problem(said: str, status: int, body: dict[str, Any], retry_after_s: float | None) -> ApiError:
    """The error that a problem document stands for; `said` is what was asked."""
    title, detail, field = (body.get(name) for name in ("title", "detail", "field"))
    title, detail = str(title or phrase(status)), str(detail or "no detail was given")
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    return _CLASSES.get(status, ApiError)(
        f"{said}: {status} {title}: {detail}{advice}",
        status,
        title,
        detail,
        field if isinstance(field, str) else None,
        retry_after_s,
    )


def phrase(status: int) -> str:
    """What a status is called."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"
