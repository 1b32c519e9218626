"""Send requests over one connection pool, retry them where that is safe, and parse or reject every response."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from feedrank.api.client.errors import ApiError, BadAnswer, ClientError, Unreachable, error_from_problem, status_phrase
from feedrank.api.client.retries import NOT_SENT_ERRORS, Clock, Retries, retry_after

T = TypeVar("T")
GZIP_MIN_BYTES = 4 * 1024
"""Bodies of at least this many bytes are compressed."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of one attempt, in seconds."""

    connect_s: float = 2.0
    read_s: float = 10.0
    """Until the first byte of the response, and between its parts."""
    write_s: float = 10.0
    pool_s: float = 5.0
    """Until a connection of the pool is free."""
    margin_s: float = 1.0
    """Time added to a request's deadline for the network: the read timeout is at least their sum."""

    def to_httpx(self, deadline_s: float = 0.0) -> httpx.Timeout:
        """Convert to httpx timeouts; the read timeout covers the request's deadline and the margin."""
        read = max(self.read_s, deadline_s + self.margin_s) if deadline_s else self.read_s
        return httpx.Timeout(connect=self.connect_s, read=read, write=self.write_s, pool=self.pool_s)


DEFAULT_TIMEOUTS = Timeouts()


class Connection:
    """A thread-safe connection pool to one service."""

    def __init__(
        self,
        url: str,
        key: str | None,
        timeouts: Timeouts,
        retries: Retries,
        clock: Clock,
        transport: httpx.BaseTransport | None,
    ) -> None:
        """Open the pool. Raises ValueError for an invalid URL or key."""
        self.url = _check_url(url)
        self._key = None if key is None else _check_key(key)
        self._timeouts, self._retries, self._clock = timeouts, retries, clock
        headers = {"Accept": "application/json, application/problem+json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._http = httpx.Client(base_url=self.url, headers=headers, transport=transport, timeout=timeouts.to_httpx())

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def call(
        self,
        parse: Callable[[dict[str, Any]], T],
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        idempotent: bool = True,
        params: Mapping[str, int] | None = None,
        deadline_s: float = 0.0,
        retries: Retries | None = None,
    ) -> T:
        """Send a request, with retries, and return its JSON response as `parse` converts it.

        idempotent: the request may arrive twice without harm. Raises ApiError, Unreachable and BadAnswer.
        """
        request_line, headers = f"{method} {path}", {}
        if body is not None:
            headers["Content-Type"] = "application/json"
            if len(body) >= GZIP_MIN_BYTES:
                body, headers["Content-Encoding"] = gzip.compress(body, 5), "gzip"
        request = self._http.build_request(
            method, path, content=body, headers=headers, params=params, timeout=self._timeouts.to_httpx(deadline_s)
        )
        try:
            outcome, attempts = (retries or self._retries).run(
                lambda: self._http.send(request), idempotent, self._clock
            )
        except httpx.DecodingError as error:
            raise BadAnswer(
                self._redact_key(f"{request_line}: found a response that can't be decompressed: {error}")
            ) from None
        if isinstance(outcome, httpx.TransportError):
            raise self._unreachable(request_line, outcome, attempts, idempotent) from None
        document = self._json_object(outcome)
        if not outcome.is_success:
            times = "" if attempts == 1 else f", {attempts} times"
            raise self._api_error(f"{request_line}{times}", outcome, document)
        if document is None:
            raise BadAnswer(
                self._redact_key(
                    f"{request_line}: found {_describe_body(outcome)}, expected a JSON object; {_PROXY_HINT}"
                )
            )
        try:
            return parse(document)
        except (KeyError, TypeError, AttributeError) as error:
            cause = f"{type(error).__name__}: {error}"
            raise BadAnswer(
                self._redact_key(
                    f"{request_line}: found JSON of another shape ({cause}), expected a feedrank"
                    f" response; {_PROXY_HINT}"
                )
            ) from None

    def _json_object(self, response: httpx.Response) -> dict[str, Any] | None:
        """Return the JSON object of a response; {} for status 204, None if the body is not a JSON object."""
        if response.status_code == 204:
            return {}
        try:
            document = response.json()
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    def _api_error(self, request_line: str, response: httpx.Response, problem: dict[str, Any] | None) -> ApiError:
        status = response.status_code
        if problem is None or "title" not in problem:
            detail = f"found {_describe_body(response)}, expected a problem document; {_PROXY_HINT}"
            if response.has_redirect_location:
                detail = (
                    f"found a redirect to {response.headers['Location']!r}, which the client does not"
                    f" follow; {_PROXY_HINT}"
                )
            problem = {"title": status_phrase(status), "detail": detail}
        problem = {
            name: self._redact_key(value) if isinstance(value, str) else value for name, value in problem.items()
        }
        return error_from_problem(request_line, status, problem, retry_after(response, self._clock.now()))

    def _unreachable(
        self, request_line: str, error: httpx.TransportError, attempts: int, idempotent: bool
    ) -> ClientError:
        sent = not isinstance(error, NOT_SENT_ERRORS)
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        advice = "check the address, and that the service runs"
        if sent:
            advice = "the service may have processed the request"
            if not idempotent:
                advice += ", so it was not retried"
        return Unreachable(
            self._redact_key(
                f"{request_line}: found no response from {self.url} after {times} ({what}), expected one; {advice}"
            ),
            sent,
        )

    def _redact_key(self, text: str) -> str:
        """Replace the API key in a text, because a proxy may have echoed it."""
        return text if self._key is None else text.replace(self._key, "***")


_PROXY_HINT = "something other than the service may have answered: check the address and any proxy"


def _describe_body(response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
    start = " ".join(response.text.split())[:80]
    return f"{len(response.content):,} bytes of {kind}, which begin with {start!r}" if start else "an empty body"


def _check_url(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"can't parse the address: {error}; expected one such as http://127.0.0.1:8080") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"found the address {url!r}, expected one such as http://127.0.0.1:8080")
    if parts.userinfo or parts.query or parts.fragment:
        raise ValueError("found an address with a user, a query or a fragment, expected none; a key is passed as `key`")
    return str(parts).rstrip("/")


def _check_key(key: str) -> str:
    """Strip and check a key, without quoting it in errors; a file or a variable may add white space."""
    stripped = key.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise ValueError(
            "found a key that is empty or has invalid characters, expected one as `feedrank keys create` prints it"
        )
    return stripped
