"""Requests and replies: one pool of connections, made again where that is safe, and every reply read or refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from api.client.errors import ApiError, BadAnswer, ClientError, Unreachable, of_problem, phrase
from api.client.retries import UNSENT, Ambient, Retries, asked_s

T = TypeVar("T")
PACK_FROM = 4 * 1024
"""Bytes from which on a body is packed."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Of one attempt, in seconds."""

    connect_s: float = 2.0
    read_s: float = 10.0
    """Until the answer begins, and between its parts."""
    write_s: float = 10.0
    pool_s: float = 5.0
    """For a connection to come free."""
    margin_s: float = 1.0
    """How much longer than its deadline an answer is waited for at least."""

    def of(self, deadline_s: float = 0.0) -> httpx.Timeout:
        """The same for httpx; the service is given its deadline, and the way there and back."""
        read = max(self.read_s, deadline_s + self.margin_s) if deadline_s else self.read_s
        return httpx.Timeout(connect=self.connect_s, read=read, write=self.write_s, pool=self.pool_s)


TIMEOUTS = Timeouts()


class Connection:
    """To one service; threads may share it."""

    def __init__(
        self,
        url: str,
        key: str | None,
        timeouts: Timeouts,
        retries: Retries,
        ambient: Ambient,
        transport: httpx.BaseTransport | None,
    ) -> None:
        """Raises ValueError where the address or the key can't be one."""
        self.url = _address(url)
        self._key = None if key is None else _token(key)
        self._timeouts, self._retries, self._ambient = timeouts, retries, ambient
        headers = {"Accept": "application/json, application/problem+json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._http = httpx.Client(base_url=self.url, headers=headers, transport=transport, timeout=timeouts.of())

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def call(
        self,
        read: Callable[[dict[str, Any]], T],
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        twice: bool = True,
        params: Mapping[str, int] | None = None,
        deadline_s: float = 0.0,
        retries: Retries | None = None,
    ) -> T:
        """The answer, as `read` makes it of its JSON. `twice`: the request may arrive twice without harm.

        Raises ApiError, Unreachable and BadAnswer.
        """
        said, headers = f"{method} {path}", {}
        if body is not None:
            headers["Content-Type"] = "application/json"
            if len(body) >= PACK_FROM:
                body, headers["Content-Encoding"] = gzip.compress(body, 5), "gzip"
        request = self._http.build_request(
            method, path, content=body, headers=headers, params=params, timeout=self._timeouts.of(deadline_s)
        )
        try:
            outcome, made = (retries or self._retries).run(lambda: self._http.send(request), twice, self._ambient)
        except httpx.DecodingError as error:
            raise BadAnswer(self._hide(f"{said}: found a reply that can't be unpacked: {error}")) from None
        if isinstance(outcome, httpx.TransportError):
            raise self._unreachable(said, outcome, made, twice) from None
        found = self._json(outcome)
        if not outcome.is_success:
            raise self._refused(said if made == 1 else f"{said}, {made} times", outcome, found)
        if found is None:
            raise BadAnswer(self._hide(f"{said}: found {_looks(outcome)}, expected a JSON object; {_OTHER}"))
        try:
            return read(found)
        except (KeyError, TypeError, AttributeError) as error:
            wrong = f"{type(error).__name__}: {error}"
            raise BadAnswer(
                self._hide(f"{said}: found JSON of another shape ({wrong}), expected what feedrank answers; {_OTHER}")
            ) from None

    def _json(self, response: httpx.Response) -> dict[str, Any] | None:
        """The object in a reply; None where there is none."""
        if response.status_code == 204:
            return {}
        try:
            found = response.json()
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _refused(self, said: str, response: httpx.Response, found: dict[str, Any] | None) -> ApiError:
        status = response.status_code
        if found is None or "title" not in found:
            detail = f"found {_looks(response)}, expected a problem document; {_OTHER}"
            if response.has_redirect_location:
                detail = f"found a redirect to {response.headers['Location']!r}, which is not followed; {_OTHER}"
            found = {"title": phrase(status), "detail": detail}
        found = {name: self._hide(value) if isinstance(value, str) else value for name, value in found.items()}
        return of_problem(said, status, found, asked_s(response, self._ambient.clock()))

    def _unreachable(self, said: str, error: httpx.TransportError, made: int, twice: bool) -> ClientError:
        sent = not isinstance(error, UNSENT)
        times = "1 attempt" if made == 1 else f"{made} attempts"
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        todo = "check the address, and that the service runs"
        if sent:
            todo = "the service may have done it all the same"
            if not twice:
                todo += ", so that it was not asked again"
        return Unreachable(
            self._hide(f"{said}: found no answer from {self.url} after {times} ({what}), expected one; {todo}"), sent
        )

    def _hide(self, text: str) -> str:
        """Without the key, which what stands between may have sent back."""
        return text if self._key is None else text.replace(self._key, "***")


_OTHER = "something other than the service may have answered: check the address, and any proxy on the way"


def _looks(response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
    start = " ".join(response.text.split())[:80]
    return f"{len(response.content):,} bytes of {kind}, which begin {start!r}" if start else "an empty body"


def _address(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the address can't be read: {error}; expected one such as http://127.0.0.1:8080") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"found the address {url!r}, expected one such as http://127.0.0.1:8080")
    if parts.userinfo or parts.query or parts.fragment:
        raise ValueError("found an address with a user, a query or a fragment, expected none; a key is passed as `key`")
    return str(parts).rstrip("/")


def _token(key: str) -> str:
    """The key without the white space that a file or a variable may add; its text is never shown."""
    found = key.strip()
    if not found or not found.isascii() or not found.isprintable() or " " in found:
        raise ValueError(
            "found a key that is empty or has other signs, expected one as `feedrank keys create` prints it"
        )
    return found
