"""The Flask application: feeds out, events in."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from api import problems
from api.schemas import RecommendBody, feed_body
from engine.events import EventError, parse
from engine.recommender import Recommender

MOST_BYTES = 8 * 1024 * 1024
MOST_EVENTS = 10_000

routes = Blueprint("feedrank", __name__)


def create_app(recommender: Recommender, clock: Callable[[], float] = time.time) -> Flask:
    """The application around a recommender. clock: unix seconds; the only clock that is read."""
    app = Flask("feedrank", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.extensions["feedrank"] = (recommender, clock)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it, its base class does not
    app.register_blueprint(routes)
    problems.init_app(app)
    return app


@routes.post("/v1/recommend")
def recommend() -> dict[str, Any]:
    """A feed, best first. It is in the journal, under its ranking id, before it is answered."""
    recommender, clock = _parts()
    body = RecommendBody.model_validate(_json_object())
    event = recommender.recommend(
        str(uuid.uuid4()),
        clock(),
        body.user,
        body.query,
        body.history,
        body.n,
        body.filters.ids(),
        body.surface,
    )
    return feed_body(event)


@routes.post("/v1/events")
def events() -> tuple[dict[str, Any], int]:
    """Take in one event, or {"events": [...]}: all of them or, where one can't be read, none."""
    recommender, clock = _parts()
    body = _json_object()
    several = body.get("events")
    if several is not None and not isinstance(several, list):
        raise EventError("events", f"found {type(several).__name__}, expected a list of events")
    if several is not None and len(several) > MOST_EVENTS:
        raise EventError("events", f"found {len(several):,} events, expected at most {MOST_EVENTS:,}")
    parsed = []
    now = clock()
    for place, one in enumerate([body] if several is None else several):
        # an event that comes without an id or a time gets them now
        stamped = {"id": str(uuid.uuid4()), "timestamp": round(now * 1000), **one} if isinstance(one, dict) else one
        try:
            parsed.append(parse(stamped))
        except EventError as error:
            if several is None:
                raise
            raise EventError(f"events[{place}].{error.field}", str(error).partition(": ")[2]) from None
    fresh = recommender.record(parsed, now)
    return {"accepted": sum(fresh), "duplicate": len(fresh) - sum(fresh), "ids": [one.id for one in parsed]}, 202


@routes.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@routes.get("/readyz")
def readyz() -> dict[str, Any]:
    """A bundle is loaded and the state is there: feeds can be served."""
    recommender, _ = _parts()
    body = {"status": "ready", "bundle": recommender.pipeline.bundle, "items": len(recommender.catalogue)}
    if recommender.ahead is not None:
        ahead = recommender.ahead
        body["ahead"] = {name: getattr(ahead, name) for name in ("waiting", "done", "dropped", "failed")}
    return body


@routes.after_app_request
def _headers(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


def _parts() -> tuple[Recommender, Callable[[], float]]:
    parts: tuple[Recommender, Callable[[], float]] = current_app.extensions["feedrank"]
    return parts


def _json_object() -> Mapping[str, Any]:
    if not request.is_json:
        raise UnsupportedMediaType(f"found content type {request.mimetype!r}, expected application/json")
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"the body can't be read as JSON: {reason}") from None
    if not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}, expected an object")
    return body
