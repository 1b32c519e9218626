"""Whether the service lives, and whether it can serve."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from api.http.group import group
from api.http.guards import takes
from api.http.service import service

routes = group("health", "Health", keys=False)


class Healthy(BaseModel):
    """The process answers."""

    status: str


class Ahead(BaseModel):
    """Feeds that are scored ahead of their request."""

    waiting: int
    done: int
    dropped: int
    failed: int


class Ready(BaseModel):
    """What answers come from."""

    status: str
    bundle: str
    items: int
    ahead: Ahead | None = None


@routes.get("/healthz", responses={200: Healthy})
@takes("none", "open")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@routes.get("/readyz", responses={200: Ready})
@takes("none", "open")
def readyz() -> dict[str, Any]:
    """A bundle is loaded and the state is there: feeds can be served."""
    recommender = service().recommender
    body = {"status": "ready", "bundle": recommender.pipeline.bundle, "items": len(recommender.catalogue)}
    if recommender.ahead is not None:
        ahead = recommender.ahead
        body["ahead"] = {name: getattr(ahead, name) for name in Ahead.model_fields}
    return body
