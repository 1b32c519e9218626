"""State routes: read or delete the stored state of a user or an item."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, Field
from werkzeug.exceptions import NotFound

from feedrank.api.http.blueprint import group
from feedrank.api.http.middleware import takes
from feedrank.api.http.service import new_id, service
from feedrank.engine.events.catalogue import hidden
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.serving.request import Asked
from feedrank.engine.serving.serving_snapshot import Live
from feedrank.engine.types import QueryVectors
from feedrank.models.items.cold_start import merged

routes = group("states", "State")
MOST_TOUCHES = 1_000


class StatePath(BaseModel):
    """Path parameters of the state routes."""

    id: str = Field(min_length=1, max_length=256)


class Touch(BaseModel):
    """One interaction of a user with an item."""

    item: str
    at: float = Field(description="Unix seconds.")


class Person(BaseModel):
    """The stored state of a user."""

    id: str
    touched: int = Field(description="Number of stored interactions.")
    latest: list[Touch] = Field(description=f"Up to {MOST_TOUCHES:,} interactions, latest first.")


class Item(BaseModel):
    """The stored state of an item."""

    id: str
    fields: dict[str, Any]
    hidden: bool = Field(description="True if no recommendation may show the item.")
    features: dict[str, float | None] = Field(description="Current features for an anonymous user; null means missing.")


class Forgotten(BaseModel):
    """Result of deleting a user or hiding an item."""

    id: str
    events: int = Field(description="Number of events deleted from the journal.")


@routes.get("/v1/state/user/<path:id>", responses={200: Person})
@takes("none", "admin")
def person(path: StatePath) -> dict[str, Any]:
    """Return the stored state of a user."""
    svc = service()
    svc.recommender.catch_up(svc.clock())
    live = svc.recommender.live
    rows, times = live.state.touched(live.people.row(path.id))
    is_listed = (rows >= 0) & (np.arange(len(rows)) < MOST_TOUCHES)
    names = live.catalogue.ids.names(rows[is_listed])
    latest = [{"item": item, "at": at} for item, at in zip(names, times[is_listed].tolist(), strict=True)]
    return {"id": path.id, "touched": len(rows), "latest": latest}


@routes.delete("/v1/state/user/<path:id>", responses={200: Forgotten})
@takes("none", "admin")
def forget(path: StatePath) -> dict[str, Any]:
    """Erase a user from the journal and from the memory of every process. Only a tombstone event stays."""
    svc = service()
    deleted = svc.recommender.forget(path.id, new_id(), svc.clock())
    if svc.upkeep is not None:
        svc.upkeep.snapshot.unlink(missing_ok=True)
    return {"id": path.id, "events": deleted}


@routes.get("/v1/state/item/<path:id>", responses={200: Item})
@takes("none", "admin")
def item(path: StatePath) -> dict[str, Any]:
    """Return the stored state of an item, with its current features."""
    svc = service()
    now = svc.clock()
    svc.recommender.catch_up(now)
    live = svc.recommender.live
    row = _row(live, path.id)
    catalogue = live.catalogue
    request = live.request(now, Asked(), QueryVectors())
    batch = live.state.read([request], [np.array([row], np.int32)])
    values = live.pipeline.featurizer.matrix(batch)[0].tolist()
    features = {
        name: value if np.isfinite(value) else None
        for name, value in zip(live.pipeline.featurizer.names, values, strict=True)
    }
    fields = merged(catalogue, {path.id: {}})[path.id]
    return {"id": path.id, "fields": fields, "hidden": hidden(fields), "features": features}


@routes.delete("/v1/state/item/<path:id>", responses={200: Forgotten})
@takes("none", "admin")
def remove(path: StatePath) -> dict[str, Any]:
    """Hide an item from all recommendations, like an item event with `removed`. Its interactions stay logged."""
    svc = service()
    _row(svc.recommender.live, path.id)
    now = svc.clock()
    svc.recommender.record([ItemEvent(new_id(), round(now * 1000), path.id, {"removed": True})], now)
    return {"id": path.id, "events": 0}


def _row(live: Live, item: str) -> int:
    row = live.catalogue.ids.row(item)
    if row < 0:
        raise NotFound(f"found no item {item!r}; send it as an item event first")
    return row
