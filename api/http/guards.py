"""What every request passes before its route, and every answer after it."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from flask import Flask, Response, current_app, g, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, Forbidden, RequestEntityTooLarge, Unauthorized, UnsupportedMediaType

from api.http import limits
from api.http.service import NAME, service
from api.keys import Key, Scope

View = TypeVar("View", bound=Callable[..., Any])
ENDS = 16 + zlib.MAX_WBITS
"""Reads a gzip stream with its header and checksum."""


def takes(kind: str, scope: Scope | Literal["open"] = "read") -> Callable[[View], View]:
    """Marks a route: what body it takes (`json`, `lenient` for JSON under any content type, or `none`), and the scope
    that a key must have for it (`open`: anybody may come)."""

    def mark(view: View) -> View:
        view.feedrank = (kind, scope)  # type: ignore[attr-defined]  # functions hold what one gives them
        return view

    return mark


def init_app(app: Flask) -> None:
    """Ask for keys, count requests, check content types, read JSON once, and put the usual headers on every answer."""
    app.before_request(_key)
    config = app.extensions[NAME].config
    if config.rate_limit:
        limits.init_app(app, config.rate_limit, _caller, lambda: mark_of(request.endpoint)[1] == "open")
    app.before_request(_body_is_json)
    app.after_request(_headers)


def _key() -> None:
    """The caller's key, where one is wanted: `Authorization: Bearer TOKEN`."""
    here = service()
    _, scope = mark_of(request.endpoint)
    if here.keys is None or scope == "open":
        return
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    key = here.keys.check(token.strip(), 1000 * here.clock()) if kind.lower() == "bearer" else None
    if key is None:
        found = "no key" if not token else "a key that is unknown or out of date"
        raise Unauthorized(
            f"found {found}, expected Authorization: Bearer with a key as `feedrank keys create` makes",
            www_authenticate=WWWAuthenticate("bearer"),
        )
    g.key, g.api_key = key.id, key
    demand(scope)


def demand(scope: Scope) -> None:
    """An HTTP 403 where the caller's key has not this scope."""
    key: Key | None = g.get("api_key")
    if key is not None and not key.allows(scope):
        raise Forbidden(f"the key {key.id} has the scopes {', '.join(key.scopes)}, expected {scope}")


def _caller() -> str:
    """Whose requests are counted together."""
    return str(g.get("key") or request.remote_addr or "")


def mark_of(endpoint: str | None) -> tuple[str, Scope | Literal["open"]]:
    """What a route is marked with; those of libraries take no body, and anybody may read them."""
    view = current_app.view_functions.get(endpoint or "")
    found: tuple[str, Scope | Literal["open"]] = getattr(view, "feedrank", ("none", "open"))
    return found


def _body_is_json() -> None:
    kind, _ = mark_of(request.endpoint)
    if kind == "none":
        return
    if kind == "json" and not request.is_json:
        raise UnsupportedMediaType(f"found content type {request.mimetype!r}, expected application/json")
    _unpack()
    try:
        # read with this argument it is kept, and every later reader is given the same
        body = request.get_json(force=True)
    except RecursionError:
        raise BadRequest("the body can't be read as JSON: nested too deeply") from None
    except BadRequest as error:
        cause = error.__cause__ or error.__context__
        raise BadRequest(f"the body can't be read as JSON: {cause or error.description}") from None
    if kind == "json" and not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}, expected an object")


def _unpack() -> None:
    """A gzip body in place of which the rest of the request sees what is in it, up to the usual limit."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return
    if encoding != "gzip":
        raise UnsupportedMediaType(f"found content encoding {encoding!r}, expected gzip or none")
    most = current_app.config["MAX_CONTENT_LENGTH"]
    reader = zlib.decompressobj(ENDS)
    try:
        raw = reader.decompress(request.get_data(cache=False), most + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is no gzip stream: {error}") from None
    if len(raw) > most:
        raise RequestEntityTooLarge(f"the body is more than {most:,} bytes when unpacked")
    if not reader.eof:
        raise BadRequest("the gzip stream ends in the middle")
    request.environ["CONTENT_LENGTH"] = str(len(raw))
    request.__dict__.pop("content_length", None)
    request.stream = io.BytesIO(raw)


HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response
