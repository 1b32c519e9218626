"""State routes: read or delete the stored state of a user or an item."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, Field
from werkzeug.exceptions import NotFound

from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.bodies import Id
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.service import current_service, new_id
from feedrank.engine.events.catalogue import is_hidden
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.engine.types import QueryVectors
from feedrank.models.items.cold_start import merge_item_fields

routes = make_blueprint("entities", "State")
MAX_INTERACTIONS = 1_000


class EntityPath(BaseModel):
    """Path parameters of the state routes."""

    id: Id


class RecentInteraction(BaseModel):
    """One interaction of a user with an item."""

    item: str
    at: float = Field(description="Unix seconds.")


class UserState(BaseModel):
    """The stored state of a user."""

    id: str
    interaction_count: int = Field(description="Number of stored interactions.")
    recent_interactions: list[RecentInteraction] = Field(
        description=f"Up to {MAX_INTERACTIONS:,} interactions, latest first."
    )
    disliked: list[str] = Field(
        description=f"Up to {MAX_INTERACTIONS:,} items that the user dislikes, latest first; no feed shows them."
    )


class ItemState(BaseModel):
    """The stored state of an item."""

    id: str
    fields: dict[str, Any]
    hidden: bool = Field(description="True if no recommendation may show the item.")
    features: dict[str, float | None] = Field(description="Current features for an anonymous user; null means missing.")


class DeletionResult(BaseModel):
    """Result of deleting a user or hiding an item."""

    id: str
    deleted_events: int = Field(description="Number of events deleted from the journal.")


@routes.get("/v1/state/user/<path:id>", responses={200: UserState})
@route_policy("none", "admin")
def user_state(path: EntityPath) -> dict[str, Any]:
    """Return the stored state of a user."""
    svc = current_service()
    svc.recommender.catch_up(svc.clock())
    live = svc.recommender.snapshot
    rows, times = live.state.history(live.users.row(path.id))
    is_listed = (rows >= 0) & (np.arange(len(rows)) < MAX_INTERACTIONS)
    names = live.catalogue.ids.names(rows[is_listed])
    interactions = [{"item": item, "at": at} for item, at in zip(names, times[is_listed].tolist(), strict=True)]
    disliked = live.catalogue.ids.names(live.state.disliked(live.users.row(path.id))[:MAX_INTERACTIONS])
    return {
        "id": path.id, "interaction_count": len(rows), "recent_interactions": interactions, "disliked": disliked,
    }  # fmt: skip


@routes.delete("/v1/state/user/<path:id>", responses={200: DeletionResult})
@route_policy("none", "admin")
def delete_user(path: EntityPath) -> dict[str, Any]:
    """Erase a user from the journal and from the memory of every process. Only a tombstone event stays."""
    svc = current_service()
    deleted = svc.recommender.erase_user(path.id, new_id(), svc.clock())
    if svc.admin is not None:
        svc.admin.snapshot.unlink(missing_ok=True)
    return {"id": path.id, "deleted_events": deleted}


@routes.get("/v1/state/item/<path:id>", responses={200: ItemState})
@route_policy("none", "admin")
def item_state(path: EntityPath) -> dict[str, Any]:
    """Return the stored state of an item, with its current features."""
    svc = current_service()
    now = svc.clock()
    svc.recommender.catch_up(now)
    live = svc.recommender.snapshot
    row = _item_row(live, path.id)
    catalogue = live.catalogue
    request = live.resolve(now, RecommendationRequest(), QueryVectors())
    batch = live.state.read([request], [np.array([row], np.int32)])
    values = live.pipeline.featurizer.matrix(batch)[0].tolist()
    features = {
        name: value if np.isfinite(value) else None
        for name, value in zip(live.pipeline.featurizer.names, values, strict=True)
    }
    fields = merge_item_fields(catalogue, {path.id: {}})[path.id]
    return {"id": path.id, "fields": fields, "hidden": is_hidden(fields), "features": features}


@routes.delete("/v1/state/item/<path:id>", responses={200: DeletionResult})
@route_policy("none", "admin")
def hide_item(path: EntityPath) -> dict[str, Any]:
    """Hide an item from all recommendations, like an item event with `removed`. Its interactions stay logged."""
    svc = current_service()
    _item_row(svc.recommender.snapshot, path.id)
    now = svc.clock()
    svc.recommender.record([ItemEvent(new_id(), round(now * 1000), path.id, {"removed": True})], now)
    return {"id": path.id, "deleted_events": 0}


def _item_row(snapshot: ServingSnapshot, item: str) -> int:
    row = snapshot.catalogue.ids.row(item)
    if row < 0:
        raise NotFound(f"found no item {item!r}; send it as an item event first")
    return row
