"""Health routes: liveness and readiness."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from feedrank.api.http.blueprint import group
from feedrank.api.http.middleware import takes
from feedrank.api.http.service import service

routes = group("health", "Health", keys=False)


class Healthy(BaseModel):
    """Liveness of the process."""

    status: str


class Ahead(BaseModel):
    """Counts of the prefetch queue, which precomputes cross-encoder scores before a request."""

    waiting: int
    done: int
    dropped: int
    failed: int


class Ready(BaseModel):
    """Readiness, with the bundle that serves and the number of items."""

    status: str
    bundle: str
    items: int
    ahead: Ahead | None = None


@routes.get("/healthz", responses={200: Healthy})
@takes("none", "open")
def healthz() -> dict[str, str]:
    """Return 200 while the process responds."""
    return {"status": "ok"}


@routes.get("/readyz", responses={200: Ready})
@takes("none", "open")
def readyz() -> dict[str, Any]:
    """Return 200 once a bundle and the state are loaded."""
    recommender = service().recommender
    body = {"status": "ready", "bundle": recommender.pipeline.bundle, "items": len(recommender.catalogue)}
    if (queue := recommender.ahead) is not None:
        body["ahead"] = {
            "waiting": queue.waiting, "done": queue.done, "dropped": queue.dropped, "failed": queue.failed
        }  # fmt: skip
    return body
