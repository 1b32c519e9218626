"""The events that a journal got since the last look, in the order in which a running service applies them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import sorted_events_to_table
from feedrank.engine.events.events import Event, ItemEvent, effective_time
from feedrank.engine.events.field_collector import FieldCollector
from feedrank.engine.events.item_arrivals import ItemArrivals
from feedrank.engine.events.vocabulary import Vocabulary

_UNKNOWN_MS = -(2**62)


def arrived_events_to_table(
    events: Sequence[Event], arrivals: ItemArrivals, user_ids: Vocabulary, fields: FieldCollector | None = None,
    due: Sequence[Event] = (),
) -> EventTable:  # fmt: skip
    """Build the table of new events of a journal, by which a state advances: their items get rows in `arrivals`.

    due: earlier events that were postponed until now.
    """
    in_order = in_order_of_arrival(events, due)
    arrivals.announce(event.item for event in in_order if isinstance(event, ItemEvent) and arrivals.takes(event))
    return sorted_events_to_table(in_order, arrivals.ids, user_ids, as_arrived=True, fields=fields, arrivals=arrivals)


def arrival_times(imported: Sequence[int], received: Sequence[tuple[int, int]]) -> list[int]:
    """Return when imported events came, as far as the events tell that a service received before and after them.

    imported: ascending offsets. received: offset and `received` of events, by offset. An event of a clock that was
    ahead has a later `received` than those after it. Epoch milliseconds; -2^62 for one without an event before it.
    """
    if not received:
        return [_UNKNOWN_MS] * len(imported)
    offsets, times = np.array(received, np.int64).T
    earliest_after = np.append(np.minimum.accumulate(times[::-1])[::-1], -_UNKNOWN_MS)
    place = np.searchsorted(offsets, np.array(imported, np.int64))
    before = np.append(times, _UNKNOWN_MS)[place - 1]  # of place 0: the last one, which is unknown
    found: list[int] = np.minimum(before, earliest_after[place]).tolist()
    return found


def in_order_of_arrival(events: Sequence[Event], due: Sequence[Event] = ()) -> list[Event]:
    """Sort new events by `effective_time`, but leave imported item events between the received events beside them.

    events: in the order of the journal, which decides ties. due: earlier ones that were postponed until now.
    """
    places = [n for n, event in enumerate(events) if event.received is None and isinstance(event, ItemEvent)]
    arrived: dict[int, int] = {}
    if places:
        received = [(n, event.received) for n, event in enumerate(events) if event.received is not None]
        arrived = dict(zip(places, arrival_times(places, received), strict=True))
    keyed = [(effective_time(event), event) for event in due]
    keyed += [(arrived.get(n, effective_time(event)), event) for n, event in enumerate(events)]
    return [event for _, event in sorted(keyed, key=lambda entry: entry[0])]
