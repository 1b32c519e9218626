"""Proves that events can be learnt from, by building the columns that every reader of the log builds from them."""

from __future__ import annotations

from collections.abc import Sequence

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, ItemEvent


def check_learnable(events: Sequence[Event]) -> None:
    """Check that a catalogue and an event table can be built from events. Raises EventError that names a bad one.

    `parse` has refused every event that is known to fail here. This is the proof, before such an event is in a journal,
    where it would stop all readers.
    """
    try:
        _build_columns(events)
    except Exception:
        for event in events:
            try:
                _build_columns([event])
            except Exception as problem:
                raise EventError(
                    "event", f"{event.id!r} can't be learnt from: {problem}; nothing was written"
                ) from None
        raise


def _build_columns(events: Sequence[Event]) -> None:
    catalogue = Catalogue.from_events(event for event in events if isinstance(event, ItemEvent))
    if len(catalogue):
        Catalogue.from_items(catalogue.to_items())  # as an update of the item reads it
    events_to_table(events, catalogue.ids)
