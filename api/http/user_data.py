"""All that the service keeps of a user, as one JSON document that is written while the journal is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from feedrank.engine.events.events import UserEvent, valid_from
from feedrank.engine.journal.decoding import decode_object
from feedrank.engine.serving.serving_snapshot import ServingSnapshot


class RecentInteraction(BaseModel):
    """One interaction of a user with an item."""

    item: str
    at: float = Field(description="Unix seconds.")


class KeptEvent(BaseModel, extra="allow"):
    """An event of the journal, in the format of the reference of events."""

    offset: int = Field(description="Journal offset.")
    event: str = Field(description="ranking, interaction or user.")
    id: str
    timestamp: int = Field(description="Epoch milliseconds.")


class UserData(BaseModel):
    """All that the service keeps of a user: the state, and all events of the journal."""

    id: str
    at: float = Field(description="Unix seconds at which the state was read.")
    offset: int = Field(description="Journal offset of the last event in the state.")
    interaction_count: int = Field(description="Number of interactions in the state.")
    recent_interactions: list[RecentInteraction] = Field(description="All of them, latest first.")
    disliked: list[str] = Field(description="Items that the user dislikes, latest first; no feed shows them.")
    sessions: list[str] = Field(description="The user's sessions: those that the events name.")
    events: list[KeptEvent] = Field(
        description="All events of the user in the order of writing, complete: user events with their fields, rankings "
        "with their query and context, interactions; also those without a user in the user's sessions, or that name a "
        "ranking of the user. `DELETE` deletes these."
    )
    fields: dict[str, Any] = Field(description="The latest value of each field of the user.")
    assignments: dict[str, list[str]] = Field(
        description="Experiment -> the variants that the rankings of the user were part of, in order of first use."
    )


@dataclass(frozen=True, slots=True)
class UserEventReader:
    """Finds the sessions and reads the events of a user."""

    sessions: list[str]
    events: Callable[[], Iterator[tuple[int, Mapping[str, Any]]]]
    """Yields (offset, body) of each event, in the order of writing."""


def read_state(snapshot: ServingSnapshot, user: str, at: float) -> dict[str, Any]:
    """Return what the state holds of a user. at: unix seconds. Call it under the recommender's lock."""
    row = snapshot.users.row(user)
    rows, times = snapshot.state.history(row)
    is_known = rows >= 0
    names = snapshot.state.items.names(rows[is_known])
    times = times[is_known]
    return {
        "id": user, "at": at, "offset": snapshot.offset, "interaction_count": len(rows),
        "recent_interactions": [
            {"item": item, "at": time} for item, time in zip(names, np.asarray(times).tolist(), strict=True)
        ],
        "disliked": snapshot.state.items.names(snapshot.state.disliked(row)),
    }  # fmt: skip


def user_document(state: Mapping[str, Any], reader: UserEventReader) -> Iterator[str]:
    """Yield the parts of the JSON document `UserData`, so that no user is too large for the memory."""
    yield json.dumps({**state, "sessions": reader.sessions}, ensure_ascii=False)[:-1]
    yield ', "events": ['
    fields: dict[str, Any] = {}
    changed_ms: dict[str, int] = {}
    assignments: dict[str, dict[str, None]] = {}
    for number, (offset, body) in enumerate(reader.events()):
        _add_fields(body, fields, changed_ms)
        for experiment, variant in _experiments(body):
            assignments.setdefault(experiment, {})[variant] = None
        yield ("," if number else "") + "\n" + json.dumps({"offset": offset, **body}, ensure_ascii=False)
    rest = {"fields": fields, "assignments": {name: list(variants) for name, variants in assignments.items()}}
    yield "], " + json.dumps(rest, ensure_ascii=False)[1:] + "\n"


def _add_fields(body: Mapping[str, Any], fields: dict[str, Any], changed_ms: dict[str, int]) -> None:
    """Take over the fields of a user event that are not older than the known ones; one that can't be read has none."""
    if body.get("event") != "user":
        return
    with suppress(ValueError):
        event = decode_object(dict(body))
        valid_ms = valid_from(event)
        for name, value in event.fields.items() if isinstance(event, UserEvent) else ():
            if valid_ms >= changed_ms.get(name, valid_ms):
                fields[name], changed_ms[name] = value, valid_ms


def _experiments(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (experiment, variant) of a ranking."""
    served = body.get("served")
    pairs = served.get("experiments") if isinstance(served, Mapping) else None
    if isinstance(body.get("experiment"), str) and isinstance(body.get("variant"), str):
        yield body["experiment"], body["variant"]
    for pair in pairs if isinstance(pairs, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair):
            yield pair[0], pair[1]
