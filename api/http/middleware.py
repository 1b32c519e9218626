"""Middleware: API keys, rate limits and body parsing before the route, security headers after it."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from flask import Flask, Response, current_app, g, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, Forbidden, RequestEntityTooLarge, Unauthorized, UnsupportedMediaType

from feedrank.api.http import limits
from feedrank.api.http.service import EXTENSION_KEY, current_service
from feedrank.api.keys import ApiKey, Scope

View = TypeVar("View", bound=Callable[..., Any])
GZIP_WBITS = 16 + zlib.MAX_WBITS
"""zlib `wbits` for a gzip stream with header and checksum."""


def route_policy(body: str, scope: Scope | Literal["open"] = "read") -> Callable[[View], View]:
    """Decorate a route with its policy: the body it accepts and the scope that it requires.

    kind: `json`, `lenient` (JSON under any content type) or `none`. scope: `open` needs no key.
    """

    def mark(view: View) -> View:
        view.feedrank = (body, scope)  # type: ignore[attr-defined]  # functions accept attributes
        return view

    return mark


def init_app(app: Flask) -> None:
    """Register the middleware: authentication, rate limit, JSON parsing and security headers."""
    app.before_request(_authenticate)
    config = app.extensions[EXTENSION_KEY].config
    if config.rate_limit:
        limits.init_app(app, config.rate_limit, _rate_limit_key, lambda: policy_of(request.endpoint)[1] == "open")
    app.before_request(_parse_body)
    app.after_request(_add_security_headers)


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


def _rate_limit_key() -> str:
    """Return the key id, or else the address, that the rate limit counts by."""
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
    _decompress_body()
    try:
        # with force=True Flask caches the result, so later readers get the same object
        body = request.get_json(force=True)
    except RecursionError:
        raise BadRequest("the body can't be read as JSON: nested too deeply") from None
    except BadRequest as error:
        cause = error.__cause__ or error.__context__
        raise BadRequest(f"the body can't be read as JSON: {cause or error.description}") from None
    if kind == "json" and not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}, expected an object")


def _decompress_body() -> None:
    """Replace a gzip body by its decompressed content, up to the usual size limit."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return
    if encoding != "gzip":
        raise UnsupportedMediaType(f"found content encoding {encoding!r}, expected gzip or none")
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    reader = zlib.decompressobj(GZIP_WBITS)
    try:
        raw = reader.decompress(request.get_data(cache=False), limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not a gzip stream: {error}") from None
    if len(raw) > limit:
        raise RequestEntityTooLarge(f"the decompressed body is too large, expected at most {limit:,} bytes")
    if not reader.eof:
        raise BadRequest("the gzip stream is truncated")
    request.environ["CONTENT_LENGTH"] = str(len(raw))
    request.__dict__.pop("content_length", None)
    request.stream = io.BytesIO(raw)


SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _add_security_headers(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response
