"""Events in: each is taken, known already, or rejected with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import request

from api.http import answers
from api.http.group import group
from api.http.guards import takes
from api.http.service import Service, new_id, service
from engine.events import (
    FORGOTTEN,
    Event,
    EventError,
    ExperimentEvent,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
    UserEvent,
    forgotten,
    parse,
)

MOST_EVENTS = 10_000
KINDS = {ItemEvent: "item", UserEvent: "user", RankingEvent: "ranking", InteractionEvent: "interaction"}
routes = group("events", "Events")
EVENT = {
    "type": "object",
    "required": ["event"],
    "properties": {
        "event": {"enum": ["item", "user", "ranking", "interaction"]},
        "id": {"type": "string", "minLength": 1, "description": "Counts once; made up where it is absent."},
        "timestamp": {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "description": "Epoch milliseconds or ISO-8601 with a zone; now where it is absent.",
        },
    },
}  # fmt: skip
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        EVENT,
                        {"type": "object", "required": ["events"],
                         "properties": {"events": {"type": "array", "items": EVENT, "maxItems": MOST_EVENTS}}},
                    ]
                }
            }
        },
    }
}  # fmt: skip


@routes.post("/v1/events", responses={202: answers.Taken}, openapi_extensions=_BODY)
@takes("json", "write")
def events() -> tuple[dict[str, Any], int]:
    """Take in one event, or {"events": [...]}; the body may be gzip. What is accepted is on disk."""
    body = request.get_json()
    several = body.get("events")
    if several is None:
        taken = take(service(), [body])
        if taken["rejected"]:
            raise EventError(taken["rejected"][0]["field"], taken["rejected"][0]["detail"])
        return taken, 202
    if not isinstance(several, list):
        raise EventError("events", f"found {type(several).__name__}, expected a list of events")
    if len(several) > MOST_EVENTS:
        raise EventError("events", f"found {len(several):,} events, expected at most {MOST_EVENTS:,}")
    return take(service(), several), 202


def take(here: Service, several: Sequence[Any]) -> dict[str, Any]:
    """Record what can be read of decoded events, and say what came of each."""
    now = here.clock()
    parsed: list[Event] = []
    ids: list[str | None] = []
    rejected: list[dict[str, Any]] = []
    for place, one in enumerate(several):
        # an event that comes without an id or a time gets them now
        stamped = {"id": new_id(), "timestamp": round(now * 1000), **one} if isinstance(one, Mapping) else one
        try:
            event = parse(stamped)
            if isinstance(event, ExperimentEvent):  # it would give whoever may write the right to change what serves
                raise EventError("event", "found 'experiment', which /v1/experiments takes, from keys for admins")
            if forgotten(event):
                raise EventError(
                    f"fields.{FORGOTTEN}", "it is the log's own; DELETE /v1/state/user/ID forgets a person"
                )
        except EventError as error:
            rejected.append({"place": place, "field": error.field, "detail": str(error).partition(": ")[2]})
            ids.append(None)
            continue
        parsed.append(event)
        ids.append(event.id)
    fresh = here.recommender.record(parsed, now) if parsed else []
    if here.metrics is not None:
        for event, new in zip(parsed, fresh, strict=True):
            here.metrics.events(KINDS[type(event)], "accepted" if new else "duplicate")
        if rejected:
            here.metrics.events("other", "rejected", len(rejected))
    return {"accepted": sum(fresh), "duplicate": len(fresh) - sum(fresh), "rejected": rejected, "ids": ids}
