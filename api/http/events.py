"""The events route: each event is accepted, a duplicate, or rejected with a reason."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flask import request

from feedrank.api.http import responses
from feedrank.api.http.blueprint import make_blueprint
from feedrank.api.http.middleware import may_import, route_policy
from feedrank.api.http.quotas import current_quotas
from feedrank.api.http.service import Service, current_service, new_id
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import parse
from feedrank.engine.events.event_time import check_is_of_a_log, check_not_ahead
from feedrank.engine.events.events import (
    TOMBSTONE,
    Event,
    ExperimentEvent,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
    UserEvent,
    as_imported,
    service_field,
)
from feedrank.engine.events.ids import canonical_event
from feedrank.engine.events.interaction_types import unlisted_warning
from feedrank.engine.journal import legacy

MAX_EVENTS = 10_000
MAX_ITEMS = 10_000
"""Items of a ranking."""
MAX_TYPES_LOGGED = 100
"""How many unlisted interaction types a process logs a warning of, one each."""
EVENT_KINDS = {ItemEvent: "item", UserEvent: "user", RankingEvent: "ranking", InteractionEvent: "interaction"}
RESERVED_FIELDS = (TOMBSTONE, legacy.TOMBSTONE)
"""Fields that make a user event a tombstone, today and in journals of version 0.1."""
routes = make_blueprint("events", "Events")
_log = logging.getLogger(__name__)
EVENT_SCHEMA = {
    "type": "object",
    "required": ["event"],
    "properties": {
        "event": {"enum": ["item", "user", "ranking", "interaction"]},
        "id": {"type": "string", "minLength": 1, "description": "For idempotent writes; generated if absent."},
        "timestamp": {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "description": "Epoch milliseconds or ISO-8601 with a time zone; the current time if absent.",
        },
    },
}  # fmt: skip
_EVENTS_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        EVENT_SCHEMA,
                        {"type": "object", "required": ["events"],
                         "properties": {"events": {"type": "array", "items": EVENT_SCHEMA, "maxItems": MAX_EVENTS}}},
                    ]
                }
            }
        },
    }
}  # fmt: skip


@routes.post("/v1/events", responses={202: responses.EventsResult}, openapi_extensions=_EVENTS_SCHEMA)
@route_policy("json", "write")
def events() -> tuple[dict[str, Any], int]:
    """Record one event, or {"events": [...]}; the body may be gzip. Accepted events are on disk."""
    body = request.get_json()
    event_list = body.get("events")
    if event_list is None:
        result = record_events(current_service(), [body])
        if result["rejected"]:
            raise EventError(result["rejected"][0]["field"], result["rejected"][0]["detail"])
        return result, 202
    if not isinstance(event_list, list):
        raise EventError("events", f"found {type(event_list).__name__}, expected a list of events")
    if len(event_list) > MAX_EVENTS:
        raise EventError("events", f"found {len(event_list):,} events, expected at most {MAX_EVENTS:,}")
    return record_events(current_service(), event_list), 202


def record_events(service: Service, bodies: Sequence[Any]) -> dict[str, Any]:
    """Record decoded events in the journal; the result lists accepted, duplicate and rejected ones."""
    now, erasures = service.clock(), None if service.admin is None else service.admin.erasures()
    parsed: list[Event] = []
    ids: list[str | None] = []
    rejected: list[dict[str, Any]] = []
    for index, body in enumerate(bodies):
        try:
            given = canonical_event(body)
            # an event without an id or a timestamp gets them here
            stamped = {"id": new_id(), "timestamp": round(now * 1000), **given} if isinstance(given, Mapping) else given
            event = parse(stamped)
            check_not_ahead(event, round(now * 1000))
            check_is_of_a_log(event)
            if isinstance(event, RankingEvent) and len(event.items) > MAX_ITEMS:
                raise EventError("items", f"found {len(event.items):,} items, expected at most {MAX_ITEMS:,}")
            event = check_service_fields(event)
            if isinstance(event, ExperimentEvent):  # the write scope must not change experiments
                raise EventError("event", "found 'experiment'; use /v1/experiments with a key that has the scope admin")
            if erasures is not None and erasures.covers(event):
                raise EventError("timestamp", "found a time before the user was erased, expected a later one")
            for name in RESERVED_FIELDS if isinstance(event, UserEvent) else ():
                if event.fields.get(name) is True:
                    detail = "the name is reserved; to erase a user, call DELETE /v1/state/user/ID"
                    raise EventError(f"fields.{name}", detail)
        except EventError as error:
            rejected.append({"index": index, "field": error.field, "detail": str(error).partition(": ")[2]})
            ids.append(None)
            continue
        parsed.append(event)
        ids.append(event.id)
    if parsed:
        current_quotas().take_events(len(parsed))
    _log_unlisted(service, parsed)
    is_new = service.recommender.record(parsed, now) if parsed else []
    if service.metrics is not None:
        for event, new in zip(parsed, is_new, strict=True):
            service.metrics.count_events(EVENT_KINDS[type(event)], "accepted" if new else "duplicate")
        if rejected:
            service.metrics.count_events("other", "rejected", len(rejected))
    return {"accepted": sum(is_new), "duplicate": len(is_new) - sum(is_new), "rejected": rejected, "ids": ids}


def check_service_fields(event: Event) -> Event:
    """Check that only a key with the scope `import` sends what the service alone says of a ranking. Raises EventError.

    Any other caller could put users into arms of experiments, and forge rows of the training data.
    """
    if may_import():
        return as_imported(event)
    if (name := service_field(event)) is not None:
        raise EventError(
            name,
            "found a part that only the service writes, expected a ranking without it; leave it out, or import the log"
            " with `feedrank import` or with a key that has the scopes write and import",
        )
    return event


def _log_unlisted(service: Service, events: Sequence[Event]) -> None:
    """Log a warning of each interaction type that nothing lists, once in a process."""
    meanings, logged = service.recommender.snapshot.meanings, service.unlisted_types
    for event in events:
        if not isinstance(event, InteractionEvent) or event.type in logged or len(logged) >= MAX_TYPES_LOGGED:
            continue
        if message := unlisted_warning({event.type: 1}, meanings):
            logged.add(event.type)
            _log.warning("%s", message)
