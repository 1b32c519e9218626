"""Defines the event types, with the field names of Metarank's open format.

Four types come from that format. The fifth, `ExperimentEvent`, is our own and records a change of an experiment.

`received` is the time at which the live service accepted an event (its ingestion time). An event affects rankings from
then on, whatever its own timestamp says. Imported events have none and take effect at their timestamps.

Our optional additions to the format are marked + in the docstrings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.item_fields import ItemFields


@dataclass(frozen=True, slots=True)
class ItemEvent:
    """Sets fields of an item as of `timestamp`; a later value replaces an earlier one of the same name."""

    id: str
    timestamp: int
    """Epoch milliseconds."""
    item: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    received: int | None = None
    """+ epoch milliseconds at which the live service accepted the event."""


@dataclass(frozen=True, slots=True)
class UserEvent:
    """Sets fields of a user as of `timestamp`."""

    id: str
    timestamp: int
    user: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    received: int | None = None


@dataclass(frozen=True, slots=True)
class RankingEvent:
    """Records a ranking: the list of items that was shown, in order."""

    id: str
    timestamp: int
    items: tuple[str, ...]
    user: str | None = None
    session: str | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    labels: tuple[float, ...] | None = None
    """One label per item if the log has labels; NaN where an item has none."""
    received: int | None = None
    positions: tuple[float, ...] | None = None
    """+ the position at which each item was shown, from 1; None: the order of `items`."""
    scores: tuple[float, ...] | None = None
    """+ the score of each item."""
    propensities: tuple[float, ...] | None = None
    """+ the probability with which each item was shown at its position, in (0, 1]."""
    surface: str | None = None
    """+ where the ranking was shown."""
    bundle: str | None = None
    """+ the model that made it."""
    experiment: str | None = None
    """+ the experiment it was part of."""
    variant: str | None = None
    """+ the arm of that experiment."""
    team: tuple[str, ...] | None = None
    """+ of an interleaved list, the arm credited for each item; empty: none."""
    seed: int | None = None
    """+ the seed of what was random in it."""
    item_fields: ItemFields | None = None
    """Fields that the list brought for its items, such as the price shown: name -> one value per item, or None."""
    features: Mapping[str, Any] | None = None
    """+ logged features; only `LoggedRows` reads them."""
    served: Mapping[str, Any] | None = None
    """+ how this service made the ranking; only `RankingRecord` reads it."""
    provenance: str | None = None
    """+ who vouches for `SERVICE_FIELDS`: one of `PROVENANCES`; None: see `without_foreign_fields`."""


@dataclass(frozen=True, slots=True)
class InteractionEvent:
    """Records an interaction of a user with an item."""

    id: str
    timestamp: int
    item: str
    type: str
    """click, rating, purchase, ...; `history` marks an interaction from before the log began."""
    ranking: str | None = None
    """Id of the ranking it belongs to; None: the user's last ranking that showed the item within 30 minutes."""
    user: str | None = None
    session: str | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    value: float | None = None
    """+ a rating, price or count."""
    dwell_ms: float | None = None
    """+ dwell time in milliseconds."""
    position: int | None = None
    """+ the position at which the item was shown, from 1."""
    received: int | None = None


@dataclass(frozen=True, slots=True)
class ExperimentEvent:
    """+ Records a change of an experiment."""

    id: str
    timestamp: int
    experiment: str
    """Name of the experiment."""
    change: str
    """create, start, weights, stop-arm, stop or shadow."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the change; for `create`, the experiment spec."""
    received: int | None = None


Event: TypeAlias = ItemEvent | UserEvent | RankingEvent | InteractionEvent | ExperimentEvent

PER_ITEM_FIELDS = ("positions", "scores", "propensities")
"""Optional fields of a ranking that hold a list of numbers, one per item."""
TEXT_FIELDS = ("surface", "bundle", "experiment", "variant")
RANKING_FIELDS = (*PER_ITEM_FIELDS, *TEXT_FIELDS, "team", "seed", "features", "served")
"""Optional fields of a ranking beyond Metarank's format."""
SERVICE_FIELDS = ("served", "features", "team", "variant", "experiment", "propensities", "bundle", "provenance")
"""Fields of a ranking that only the service itself writes, or an import that the operator vouches for."""
SERVED, IMPORTED = "service", "import"
PROVENANCES = (SERVED, IMPORTED)
"""Values of `provenance`: this service made the ranking; or a caller imported it who may do so."""

JOIN_WINDOW_S = 30 * 60
"""An event that names no ranking belongs to the user's last ranking that showed the item within this time."""
TOMBSTONE = "erased"
"""Field of a user event that, where true, makes it a tombstone: everything before it is erased for this user."""


def erased_user(event: Event) -> str | None:
    """Return the user that a tombstone event erases; None for any other event."""
    return event.user if isinstance(event, UserEvent) and event.fields.get(TOMBSTONE) is True else None


def service_field(event: Event) -> str | None:
    """Return the first of `SERVICE_FIELDS` that an event has; None if it has none."""
    if not isinstance(event, RankingEvent):
        return None
    return next((name for name in SERVICE_FIELDS if getattr(event, name) is not None), None)


def without_foreign_fields(event: Event) -> Event:
    """Return a stored event without `SERVICE_FIELDS` of unknown origin: so a forged ranking is a plain one.

    They are foreign in a ranking that was received over HTTP, and so has `received`, but has no `provenance`. Versions
    before 0.3 accepted these fields from any caller. Their own rankings, and files, have no `received`.
    """
    if not isinstance(event, RankingEvent) or event.received is None or event.provenance is not None:
        return event
    if service_field(event) is None:
        return event
    nothing: dict[str, Any] = dict.fromkeys(SERVICE_FIELDS)
    return replace(event, **nothing)


def as_imported(event: Event) -> Event:
    """Return an event of a trusted import so that its `SERVICE_FIELDS` are read, if it has any."""
    if not isinstance(event, RankingEvent) or event.provenance is not None or service_field(event) is None:
        return event
    return replace(event, provenance=IMPORTED)


def effective_time(event: Event) -> int:
    """Return when the event took effect, in epoch milliseconds: its ingestion time, or its timestamp if imported.

    Logs are sorted by it.
    """
    return event.timestamp if event.received is None else event.received


def valid_from(event: Event) -> int:
    """Return since when what an event says holds, in epoch milliseconds: its timestamp, at most its effective time.

    A sender's clock may be ahead of the service's.
    """
    return min(event.timestamp, effective_time(event))
