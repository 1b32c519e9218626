"""Problem documents (RFC 9457): the error responses of the HTTP API."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, json
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from feedrank.api.http.service import TrainingError
from feedrank.api.validation_errors import first_error
from feedrank.engine.events.checks import EventError
from feedrank.engine.journal.journal import JournalError


def problem(status: int, title: str, detail: str, **extra: Any) -> Response:
    """Build an application/problem+json response."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}
    return Response(json.dumps(body), status, mimetype="application/problem+json")


def validation_problem(error: ValidationError) -> Response:
    """Convert a pydantic validation error to a problem response."""
    field, detail = first_error(error)
    return problem(400, "Bad request", f"{field}: {detail}", field=field)


def init_app(app: Flask) -> None:
    """Register handlers that convert exceptions to problem documents."""
    app.register_error_handler(ValidationError, validation_problem)

    @app.errorhandler(EventError)
    def _bad_event(error: EventError) -> Response:
        return problem(400, "Bad request", str(error), field=error.field)

    @app.errorhandler(JournalError)
    def _no_journal(error: JournalError) -> Response:
        response = problem(503, "The journal can't be written", str(error))
        response.headers["Retry-After"] = "1"
        return response

    @app.errorhandler(TrainingError)
    def _no_training(error: TrainingError) -> Response:
        return problem(409, "The training failed", str(error))

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        if error.response is not None:  # it is already a problem document
            return error.response  # type: ignore[return-value]  # Flask's own class
        response = problem(error.code or 500, error.name, error.description or error.name)
        response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
        return response

    @app.errorhandler(Exception)
    def _unexpected(error: Exception) -> Response:
        app.logger.exception("a request failed", exc_info=error)
        return problem(500, "Internal error", "the request failed; see the server's log")
