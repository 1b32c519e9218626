"""Problem documents (RFC 9457): how the HTTP API says what is wrong."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, json
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from api.http.service import TrainingError
from api.schemas import explained
from engine.events import EventError
from engine.journal import JournalError


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    """An application/problem+json response."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return Response(json.dumps(body), status, mimetype="application/problem+json")


def of_validation(error: ValidationError) -> Response:
    """What a model refused."""
    field, detail = explained(error)
    return problem(400, "Bad request", f"{field}: {detail}", field=field)


def init_app(app: Flask) -> None:
    """Turn the exceptions that requests can cause into problem documents."""
    app.register_error_handler(ValidationError, of_validation)

    @app.errorhandler(EventError)
    def _bad_event(error: EventError) -> Response:
        return problem(400, "Bad event", str(error), field=error.field)

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
        if error.response is not None:  # it is a problem document already
            return error.response  # type: ignore[return-value]  # Flask's own class
        response = problem(error.code or 500, error.name, error.description or error.name)
        response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
        return response

    @app.errorhandler(Exception)
    def _unforeseen(error: Exception) -> Response:
        app.logger.exception("a request failed", exc_info=error)
        return problem(500, "Internal error", "the request failed; the server's log says why")
