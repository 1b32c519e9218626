"""What is known of a person or an item, and an end to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, Field
from werkzeug.exceptions import NotFound

from api.http.group import group
from api.http.guards import takes
from api.http.service import new_id, service
from engine.asked import Asked
from engine.catalogue import hidden
from engine.events import ItemEvent
from engine.live import Live
from engine.types import QueryVectors
from models.newcomers import merged

routes = group("states", "State")
MOST_TOUCHES = 1_000


class StatePath(BaseModel):
    """Whose."""

    id: str = Field(min_length=1, max_length=256)


class Touch(BaseModel):
    """Something that a person did with an item."""

    item: str
    at: float = Field(description="Unix seconds.")


class Person(BaseModel):
    """What feeds know of a person."""

    id: str
    touched: int = Field(description="How often they touched an item.")
    latest: list[Touch] = Field(description=f"Up to {MOST_TOUCHES:,} of these, latest first.")


class Item(BaseModel):
    """What feeds know of an item."""

    id: str
    fields: dict[str, Any]
    hidden: bool = Field(description="No feed may show it.")
    features: dict[str, float | None] = Field(description="As a stranger's feed would have them now; null is missing.")


class Forgotten(BaseModel):
    """What is gone."""

    id: str
    events: int = Field(description="Events of the journal that were deleted.")


@routes.get("/v1/state/user/<path:id>", responses={200: Person})
@takes("none", "admin")
def person(path: StatePath) -> dict[str, Any]:
    """What feeds know of a person."""
    here = service()
    here.recommender.catch_up(here.clock())
    live = here.recommender.live
    rows, times = live.state.touched(live.people.row(path.id))
    known = (rows >= 0) & (np.arange(len(rows)) < MOST_TOUCHES)
    names = live.catalogue.ids.names(rows[known])
    latest = [{"item": item, "at": at} for item, at in zip(names, times[known].tolist(), strict=True)]
    return {"id": path.id, "touched": len(rows), "latest": latest}


@routes.delete("/v1/state/user/<path:id>", responses={200: Forgotten})
@takes("none", "admin")
def forget(path: StatePath) -> dict[str, Any]:
    """Delete all that the journal and every process hold of a person, for good; one event says so, nothing else."""
    here = service()
    gone = here.recommender.forget(path.id, new_id(), here.clock())
    if here.upkeep is not None:
        here.upkeep.snapshot.unlink(missing_ok=True)
    return {"id": path.id, "events": gone}


@routes.get("/v1/state/item/<path:id>", responses={200: Item})
@takes("none", "admin")
def item(path: StatePath) -> dict[str, Any]:
    """What feeds know of an item."""
    here = service()
    now = here.clock()
    here.recommender.catch_up(now)
    live = here.recommender.live
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
    """Take an item out of every feed, as an item event with `removed` does; what people did with it stays logged."""
    here = service()
    _row(here.recommender.live, path.id)
    now = here.clock()
    here.recommender.record([ItemEvent(new_id(), round(now * 1000), path.id, {"removed": True})], now)
    return {"id": path.id, "events": 0}


def _row(live: Live, item: str) -> int:
    row = live.catalogue.ids.row(item)
    if row < 0:
        raise NotFound(f"found no item {item!r}; send it as an item event first")
    return row
