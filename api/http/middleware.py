"""Middleware: what happens before and after the route of every request.

Before it: timing, API keys, rate limits (counted by the library `limits`) and body parsing. After it: security headers,
metrics, the trace and the log line.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from flask import Flask, Response, current_app, g, request
from flask.json.provider import DefaultJSONProvider
from limits import parse_many
from limits.errors import ConfigurationError
from limits.storage import Storage, storage_from_string
from limits.strategies import FixedWindowRateLimiter
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, Forbidden, Unauthorized, UnsupportedMediaType

from feedrank.api import logs
from feedrank.api.http.content_policy import API_POLICY, page_policy
from feedrank.api.http.gzip_body import decompress
from feedrank.api.http.json_limits import FAST_DECODER, LARGE_NUMBER, MAX_DEPTH, SMALL_BYTES, decode_json
from feedrank.api.http.problems import problem
from feedrank.api.http.service import EXTENSION_KEY, RESPONSE_STAGE, current_service
from feedrank.api.keys import ApiKey, Scope
from feedrank.engine.events.checks import EventError

_log = logging.getLogger(__name__)
View = TypeVar("View", bound=Callable[..., Any])


class StrictJson(DefaultJSONProvider):
    """Reads the JSON of all requests, within the limits of `json_limits`."""

    sort_keys = False

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Decode a body. Raises ValueError."""
        raw = s if isinstance(s, bytes) else s.encode("utf-8", "surrogatepass")
        if len(raw) <= SMALL_BYTES and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH and not LARGE_NUMBER.search(raw):
            try:
                return FAST_DECODER.decode(raw.decode())
            except ValueError:
                pass  # not UTF-8, or wrong; the error is made below
        return decode_json(raw)


def route_policy(body: str, scope: Scope | Literal["open"] = "read") -> Callable[[View], View]:
    """Decorate a route with its policy: the body it accepts and the scope that it requires.

    kind: `json`, `lenient` (JSON under any content type) or `none`. scope: `open` needs no key.
    """

    def mark(view: View) -> View:
        view.feedrank = (body, scope)  # type: ignore[attr-defined]  # functions accept attributes
        return view

    return mark


def init_app(app: Flask) -> None:
    """Register the middleware: timing, authentication, rate limit, JSON parsing and security headers.

    The hooks that time a request run before and after all others.
    """
    app.before_request(_start_request)
    app.after_request(_finish_request)
    app.before_request(_authenticate)
    config = app.extensions[EXTENSION_KEY].config
    if config.rate_limit:
        storage = counter_storage(config.rate_limit_storage, app.extensions[EXTENSION_KEY].counters_path)
        app.before_request(RateLimit(config.rate_limit, storage).check)
    app.before_request(_parse_body)
    app.after_request(_add_security_headers)


def _start_request() -> None:
    g.started = time.perf_counter()
    if (traces := current_service().traces) is not None:
        rule = None if request.url_rule is None else request.url_rule.rule
        g.trace = traces.start(request.method, rule, request.headers.get("traceparent"))


def _finish_request(response: Response) -> Response:
    started = g.get("started")
    if started is None:
        return response
    seconds = time.perf_counter() - started
    route = None if request.url_rule is None else request.url_rule.rule
    metrics = current_service().metrics
    if metrics is not None:
        metrics.observe_request(route, request.method, response.status_code, seconds)
    request_id = uuid.uuid4().hex
    if (trace := g.get("trace")) is not None:
        trace.end(response.status_code, request_id, g.get("rankings", ()), g.get("bundle"), g.get("degraded", ()))
    if response.status_code >= 500 or logs.REQUESTS.isEnabledFor(logging.INFO):
        line = logs.RequestLine(
            request_id=request_id,
            route=route,
            method=request.method,
            status=response.status_code,
            seconds=seconds,
            rankings=g.get("rankings", ()),
            bundle=g.get("bundle"),
            key=g.get("key_id"),
            degraded=g.get("degraded", ()),
        )
        logs.log_request(line)
    if (ranked_at := g.get("ranked_at")) is not None:
        current_service().latencies.observe(RESPONSE_STAGE, time.perf_counter() - ranked_at)
    return response


def _authenticate() -> None:
    """Check the API key in `Authorization: Bearer TOKEN`, if the route needs one."""
    svc = current_service()
    _, scope = policy_of(request.endpoint)
    if svc.keys is None or scope == "open":
        return
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    key = svc.keys.authenticate(token.strip(), 1000 * svc.clock()) if kind.lower() == "bearer" else None
    if key is None:
        problem = "no key" if not token else "a key that is unknown or expired"
        raise Unauthorized(
            f"found {problem}, expected Authorization: Bearer KEY; create a key with `feedrank keys create`",
            www_authenticate=WWWAuthenticate("bearer"),
        )
    g.key_id, g.api_key = key.id, key
    require_scope(scope)


def require_scope(scope: Scope) -> None:
    """Raise Forbidden (HTTP 403) if the caller's key lacks a scope."""
    key: ApiKey | None = g.get("api_key")
    if key is not None and not key.allows(scope):
        raise Forbidden(f"the key {key.id} has the scopes {', '.join(key.scopes)}, expected {scope}")


def may_import() -> bool:
    """Return whether the caller has a key with the scope `import`; without keys, no caller has it."""
    key: ApiKey | None = g.get("api_key")
    return key is not None and key.allows("import")


def counter_storage(where: str, path: Path | None) -> Storage:
    """Create a storage of the `limits` library.

    where: process, home or a URI. path: the file of the home; None: this process counts alone. Raises ValueError for a
    URI that the library can't use.
    """
    uri, options = where, dict[str, str]()
    if where == "process" or (where == "home" and path is None):
        uri = "counts://"
    elif where == "home":
        uri, options = "shared-counts://", {"path": str(path)}
    try:
        return cast(Storage, storage_from_string(uri, **options))
    except ConfigurationError as problem:
        cause = str(problem).rstrip(".")
        raise ValueError(
            f"can't use rate_limit_storage = {where!r}: {cause}; expected process, home or the URI of a storage of the"
            " library `limits` whose client is installed"
        ) from None


def rate_limit_key() -> str:
    """Return the key id, or else the address, that limits and quotas count by."""
    return str(g.get("key_id") or request.remote_addr or "")


def policy_of(endpoint: str | None) -> tuple[str, Scope | Literal["open"]]:
    """Return the (body, scope) policy of a route; routes of libraries have no body and are open."""
    view = current_app.view_functions.get(endpoint or "")
    policy: tuple[str, Scope | Literal["open"]] = getattr(view, "feedrank", ("none", "open"))
    return policy


def _parse_body() -> None:
    kind, _ = policy_of(request.endpoint)
    if kind == "none":
        return
    if kind == "json" and not request.is_json:
        raise UnsupportedMediaType(f"found content type {request.mimetype!r}, expected application/json")
    if (encoding := request.headers.get("Content-Encoding", "identity").lower()) != "identity":
        decompress(encoding)
    try:
        # with force=True Flask caches the result, so later readers get the same object
        body = request.get_json(force=True)
    except BadRequest as error:
        cause: BaseException | None = error
        while isinstance(cause, BadRequest):  # Flask wraps the error of the decoder
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, EventError):
            raise cause from None
        raise BadRequest(f"the body can't be read as JSON: {cause or error.description}") from None
    if kind == "json" and not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}, expected an object")


COUNTER_RETRY_S = 10.0
"""Seconds after a failure of the counters' storage before it is used again."""
PRUNE_THRESHOLD = 10_000
"""Number of counters above which expired ones are removed."""


class MemoryCounters(Storage):
    """Stores rate-limit counters in memory.

    The library's own memory storage starts a thread for nearly every request to remove expired counters.
    """

    STORAGE_SCHEME = ["counts"]  # noqa: RUF012  # the library reads this attribute
    base_exceptions = ()

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_: float | str | bool) -> None:
        super().__init__(uri, wrap_exceptions)
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[float, int]] = {}

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Increment a counter; an expired one restarts at zero."""
        now = time.time()
        with self._lock:
            ends, count = self._counts.get(key, (0.0, 0))
            if ends <= now:
                ends, count = now + expiry, 0
                if len(self._counts) >= PRUNE_THRESHOLD:
                    self._counts = {name: entry for name, entry in self._counts.items() if entry[0] > now}
            self._counts[key] = (ends, count + amount)
            return count + amount

    def get(self, key: str) -> int:
        """Return the value of a counter; 0 if it expired."""
        ends, count = self._counts.get(key, (0.0, 0))
        return count if ends > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """Return the expiry time of a counter, in unix seconds."""
        return self._counts.get(key, (time.time(), 0))[0]

    def check(self) -> bool:
        """Report that the storage is available."""
        return True

    def reset(self) -> int:
        """Remove all counters; returns how many."""
        with self._lock:
            count, self._counts = len(self._counts), {}
        return count

    def clear(self, key: str) -> None:
        """Remove a counter."""
        with self._lock:
            self._counts.pop(key, None)


class RateLimit:
    """Counts the requests of each caller, and refuses those beyond the limits."""

    def __init__(self, text: str, storage: Storage) -> None:
        """text: limits such as 1000/second. storage: counters, which may be on a server that is gone at times."""
        self._limits = tuple(parse_many(text))
        self._limiter, self._alone = FixedWindowRateLimiter(storage), FixedWindowRateLimiter(MemoryCounters())
        self._retry_at = 0.0

    def check(self) -> Response | None:
        """Count the current request; return the response if it is beyond a limit. Open routes have none."""
        if policy_of(request.endpoint)[1] == "open":
            return None
        key, now = rate_limit_key(), time.time()
        if now >= self._retry_at:
            try:
                return self._count(self._limiter, key, now)
            except Exception:  # requests are counted in this process until the counters can be reached again
                self._retry_at = now + COUNTER_RETRY_S
                _log.exception("the requests can't be counted in the storage of rate limits; this process counts alone")
        return self._count(self._alone, key, now)

    def _count(self, limiter: FixedWindowRateLimiter, key: str, now: float) -> Response | None:
        for limit in self._limits:
            if not limiter.hit(limit, key):
                wait = max(1, math.ceil(limiter.get_window_stats(limit, key).reset_time - now))
                response = problem(429, "Too many requests", f"found more than {limit}; wait {wait} s")
                response.headers["Retry-After"] = str(wait)
                return response
        return None


SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": API_POLICY,
}


def _add_security_headers(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers[name] = value
    if response.mimetype == "text/html":
        response.direct_passthrough = False
        response.headers["Content-Security-Policy"] = page_policy(response.get_data(as_text=True))
    response.headers.setdefault("Cache-Control", "no-store")
    return response
