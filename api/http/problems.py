"""Problem documents (RFC 9457): how the HTTP API says what is wrong."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, json
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from api.schemas import explained
from engine.events import EventError
from engine.journal import JournalError


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    """An application/problem+json response."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return Response(json.dumps(body), status, mimetype="application/problem+json")


def init_app(app: Flask) -> None:
    """Turn the exceptions that requests can cause into problem documents."""

    @app.errorhandler(ValidationError)
    def _invalid(error: ValidationError) -> Response:
        field, detail = explained(error)
        return problem(400, "Bad request", f"{field}: {detail}", field=field)

    @app.errorhandler(EventError)
    def _bad_event(error: EventError) -> Response:
        return problem(400, "Bad event", str(error), field=error.field)

    @app.errorhandler(JournalError)
    def _no_journal(error: JournalError) -> Response:
        return problem(503, "The journal can't be written", str(error))

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        response = problem(error.code or 500, error.name, error.description or error.name)
        response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
        return response

    @app.errorhandler(Exception)
    def _unforeseen(error: Exception) -> Response:
        app.logger.exception("a request failed", exc_info=error)
        return problem(500, "Internal error", "the request failed; the server's log says why")
