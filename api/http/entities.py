"""State routes: read or delete the stored state of a user or an item."""

from __future__ import annotations

from typing import Any

import numpy as np
from flask import Response, stream_with_context
from pydantic import BaseModel, Field
from werkzeug.exceptions import NotFound

from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.bodies import Id
from feedrank.api.http.middleware import route_policy
from feedrank.api.http.service import admin_services, current_service, new_id
from feedrank.api.http.user_data import UserData, read_state, user_document
from feedrank.engine.events.catalogue import Catalogue, is_hidden
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.serving.request import RecommendationRequest
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.engine.types import QueryVectors
from feedrank.models.items.cold_start import merge_item_fields

routes = make_blueprint("entities", "State")


class EntityPath(BaseModel):
    """Path parameters of the state routes."""

    id: Id


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


@routes.get("/v1/state/user/<path:id>", responses={200: UserData})
@route_policy("none", "admin")
def user_data(path: EntityPath) -> Response:
    """Return all that the service keeps of a user, as one JSON document to hand out. Slow for a long journal.

    The response is streamed, so its length is not known before. It ends with `}` if it is complete.
    """
    svc, admin = current_service(), admin_services()
    at = svc.clock()
    state = svc.recommender.read_snapshot(at, lambda snapshot: read_state(snapshot, path.id, at))
    parts = user_document(state, admin.user_events(path.id))
    return Response(stream_with_context(parts), mimetype="application/json")


@routes.delete("/v1/state/user/<path:id>", responses={200: DeletionResult})
@route_policy("none", "admin")
def delete_user(path: EntityPath) -> dict[str, Any]:
    """Erase a user from the journal and from the memory of every process.

    This covers the user's sessions too. Only a tombstone stays, with a salted hash in place of the user's id.
    """
    svc = current_service()
    deleted = svc.recommender.erase_user(path.id, new_id(), svc.clock())
    if svc.admin is not None:
        svc.admin.delete_user_data()
    return {"id": path.id, "deleted_events": deleted}


@routes.get("/v1/state/item/<path:id>", responses={200: ItemState})
@route_policy("none", "admin")
def item_state(path: EntityPath) -> dict[str, Any]:
    """Return the stored state of an item, with its current features."""
    svc = current_service()
    now = svc.clock()

    def read(live: ServingSnapshot) -> tuple[Catalogue, dict[str, float | None]]:
        row = _item_row(live, path.id)
        request = live.resolve(now, RecommendationRequest(), QueryVectors())
        batch = live.state.read([request], [np.array([row], np.int32)])
        values = live.pipeline.featurizer.matrix(batch)[0].tolist()
        names = live.pipeline.featurizer.names
        finite = (value if np.isfinite(value) else None for value in values)
        return live.catalogue, dict(zip(names, finite, strict=True))

    catalogue, features = svc.recommender.read_snapshot(now, read)
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
