"""Health routes: liveness and readiness."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from werkzeug.exceptions import ServiceUnavailable

from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.service import current_service

routes = make_blueprint("health", "Health", requires_key=False)


class HealthStatus(BaseModel):
    """Liveness of the process."""

    status: str


class PrefetchQueue(BaseModel):
    """Counts of the prefetch queue, which precomputes cross-encoder scores before a request."""

    waiting: int
    completed: int
    dropped: int
    failed: int


class ServiceStatus(BaseModel):
    """Readiness, with the bundle that serves and the number of items."""

    status: str
    bundle: str
    items: int
    prefetch: PrefetchQueue | None = None


@routes.get("/healthz", responses={200: HealthStatus})
@route_policy("none", "open")
def healthz() -> dict[str, str]:
    """Return 200 while the process responds."""
    return {"status": "ok"}


@routes.get("/readyz", responses={200: ServiceStatus})
@route_policy("none", "open")
def readyz() -> dict[str, Any]:
    """Return 200 once a bundle and the state are loaded, and 503 while the journal can't be read.

    Feeds are still answered then, from the state as of the last read.
    """
    recommender = current_service().recommender
    if not recommender.has_caught_up:
        raise ServiceUnavailable("the last read of the journal failed, so the state is old; see the server's log")
    body = {"status": "ready", "bundle": recommender.pipeline.bundle, "items": len(recommender.catalogue)}
    if (queue := recommender.prefetch_queue) is not None:
        body["prefetch"] = {
            "waiting": queue.waiting,
            "completed": queue.completed,
            "dropped": queue.dropped,
            "failed": queue.failed,
        }
    return body
