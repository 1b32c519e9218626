"""A snapshot stores the behavioural state at a journal offset, so that a start replays only later events."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Engine

from feedrank.engine.events.arrived_events import arrived_events_to_table
from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.event_table_builder import sorted_events_to_table
from feedrank.engine.events.event_time import MAX_AHEAD_MS, NO_CLOCK, FutureEvents
from feedrank.engine.events.events import Event, ItemEvent, effective_time, erased_user, valid_from
from feedrank.engine.events.field_collector import FieldCollector
from feedrank.engine.events.interaction_types import USUAL_NAMES
from feedrank.engine.events.item_arrivals import ItemArrivals
from feedrank.engine.events.vocabulary import Vocabulary
from feedrank.engine.types import UNKNOWN_ROW
from feedrank.features.state import BehaviouralState
from feedrank.features.state_spec import StateSpec
from feedrank.models.atomic_files import atomic_write
from feedrank.models.bundles.item_cutoff import ArrivalOrder, ItemCutoff

VERSION = 7
MIN_EVENTS_TO_SAVE = 10_000
"""Save a new snapshot after at least this many events since the last one."""
_digests: WeakKeyDictionary[Catalogue, dict[str, bytes]] = WeakKeyDictionary()
"""Catalogue -> settings of a state -> their digest: a promotion asks for it several times."""


class OrderedJournal(Protocol):
    """A journal that can be read from an offset, and as a whole by effective time."""

    @property
    def engine(self) -> Engine:
        """Return the engine of its database."""
        ...

    @property
    def last_offset(self) -> int:
        """Return the offset of the latest event, 0 if there is none."""
        ...

    def read(self, since: int = 0) -> Iterable[tuple[int, Event]]:
        """Yield (offset, event) after `since`, in offset order."""
        ...

    def read_by_effective_time(self, since_ms: int | None = None) -> Iterable[tuple[int, Event]]:
        """Yield (offset, event) by `effective_time`, then by offset. since_ms: start at this epoch millisecond."""
        ...


@dataclass(slots=True)
class RestoredState:
    """A state that has replayed a journal up to an offset."""

    state: BehaviouralState
    users: Vocabulary
    offset: int = 0
    high_watermark_ms: int = -(2**62)
    """Latest effective time of all replayed events, epoch milliseconds."""
    events_read: int = 0
    """Events replayed since the snapshot."""
    type_counts: Counter[str] = field(default_factory=Counter)
    """Number of replayed interactions of each type, the snapshot's included."""
    future: FutureEvents = field(default_factory=lambda: FutureEvents(NO_CLOCK))
    """Events that are more than a day ahead of the clock and are not in the state."""

    def arrivals(self) -> ItemArrivals:
        """Return what gives rows of this state to new items."""
        return ItemArrivals(self.state.items, self.state.item_fields)

    def new_collector(self) -> FieldCollector | None:
        """Return the collector of declared fields for a table of further events; None if no feature is declared."""
        return None if self.state.forms is None else FieldCollector(self.state.forms)

    def track(
        self, entries: Iterable[tuple[int, Event]], cutoff: ItemCutoff, arrivals: ItemArrivals
    ) -> Iterator[Event]:
        """Yield the events of (offset, event) pairs, and keep account of them.

        The arrivals pass over the item events whose values the catalogue has.
        """
        for offset, event in entries:
            self.offset = max(self.offset, offset)
            self.high_watermark_ms = max(self.high_watermark_ms, effective_time(event))
            self.events_read += 1
            if isinstance(event, ItemEvent) and cutoff.has(offset, event):
                arrivals.pass_over(event)
                if (row := self.state.items.row(event.item)) != UNKNOWN_ROW:
                    self.state.item_codes.note(row, valid_from(event), event.fields)
            yield event

    def advance(self, log: EventTable) -> None:
        """Replay the events of a log."""
        self.state.advance(log)
        self.type_counts.update(log.type_counts)


def restore(
    path: Path, journal: OrderedJournal, catalogue: Catalogue, spec: StateSpec, last_offset: int | None = None,
    now_ms: int = NO_CLOCK, cutoff: ItemCutoff | None = None,
) -> RestoredState:  # fmt: skip
    """Restore the state of a journal from a compatible snapshot and the events after it, or by a full replay.

    last_offset: the offset of the last event to replay; None: all events. now_ms: the clock, in epoch milliseconds;
    events that are more than a day ahead of it are left out. cutoff: the item events that the catalogue has, and that
    change nothing; None: none. The others add their items, and change categories from then on.

    The whole journal is replayed if an event after the snapshot has an earlier effective time (an import of older
    events), if the time of an event that it left out has come, if it has other items or settings or is damaged, or if
    its offset is beyond the journal (a restored backup). If a user was erased since the snapshot, its file is removed
    too.
    """
    cutoff = cutoff or ItemCutoff()
    end = journal.last_offset if last_offset is None else min(last_offset, journal.last_offset)
    later = journal.read_by_effective_time(now_ms + MAX_AHEAD_MS + 1)
    future = FutureEvents.of(now_ms, (event for offset, event in later if offset <= end))
    restored = _load(path, catalogue, spec, cutoff)
    if restored is not None and restored.offset <= end and not _is_due(journal, restored, future.limit_ms):
        newer = takewhile(lambda entry: entry[0] <= end, journal.read(restored.offset))
        tail = [(offset, event) for offset, event in newer if effective_time(event) <= future.limit_ms]
        if any(erased_user(event) for _, event in tail):
            path.unlink(missing_ok=True)
        elif all(_is_in_order(event, restored.high_watermark_ms) for _, event in tail):
            arrivals, fields = restored.arrivals(), restored.new_collector()
            events = list(restored.track(tail, cutoff, arrivals))
            restored.advance(arrived_events_to_table(events, arrivals, restored.users, fields))
            restored.events_read, restored.future, restored.offset = len(tail), future, max(restored.offset, end)
            return restored
    restored = RestoredState(BehaviouralState(catalogue, spec), Vocabulary(), future=future)
    until_now = takewhile(lambda entry: effective_time(entry[1]) <= future.limit_ms, journal.read_by_effective_time())
    order = ArrivalOrder(journal.engine, cutoff, end, future.limit_ms)
    arrivals, fields = restored.arrivals(), restored.new_collector()
    arrivals.announce(order.items)
    entries = restored.track(order.sort(entry for entry in until_now if entry[0] <= end), cutoff, arrivals)
    restored.advance(
        sorted_events_to_table(entries, arrivals.ids, restored.users, as_arrived=True, fields=fields, arrivals=arrivals)
    )
    restored.offset = max(restored.offset, end)
    return restored


def saved_offset(path: Path, catalogue: Catalogue, spec: StateSpec, cutoff: ItemCutoff | None = None) -> int:
    """Return the journal offset of the snapshot in a file; 0 if there is none, or if it is of other items or settings.

    Only that is read of the file. cutoff: as for `restore`.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            fits = _fits(arrays, catalogue, spec, cutoff or ItemCutoff())
            return int(arrays["offset"]) if fits else 0
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return 0


def is_same_state(catalogue: Catalogue, spec: StateSpec, other: Catalogue, other_spec: StateSpec) -> bool:
    """Return whether the state of one catalogue and spec is that of the other, for any journal."""
    return _compatibility_digest(catalogue, spec) == _compatibility_digest(other, other_spec)


def save(path: Path, restored: RestoredState, catalogue: Catalogue, cutoff: ItemCutoff | None = None) -> None:
    """Write a snapshot atomically. It contains user ids and histories, so protect it like the journal.

    cutoff: as for `restore`.
    """
    cutoff = cutoff or ItemCutoff()
    user_text, user_bounds = restored.users.to_arrays()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            compatibility=np.frombuffer(_compatibility_digest(catalogue, restored.state.spec), np.uint8),
            offset=np.int64(restored.offset),
            cutoff=np.array([cutoff.offset, cutoff.built_ms], np.int64),
            is_as_catalogue=np.bool_(restored.state.item_codes.is_as_catalogue),
            high_watermark_ms=np.int64(restored.high_watermark_ms),
            now_ms=np.int64(restored.future.now_ms),
            users=user_text,
            user_bounds=user_bounds,
            type_counts=np.array(json.dumps(restored.type_counts)),
            **{f"state.{name}": array for name, array in restored.state.arrays().items()},
        )


def _load(path: Path, catalogue: Catalogue, spec: StateSpec, cutoff: ItemCutoff) -> RestoredState | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not _fits(arrays, catalogue, spec, cutoff):
                return None
            state = BehaviouralState(catalogue, spec)
            names = [name for name in arrays.files if name.startswith("state.")]
            state.restore({name.removeprefix("state."): arrays[name] for name in names})
            users = Vocabulary.from_arrays(arrays["users"], arrays["user_bounds"])
            counts = Counter(json.loads(str(arrays["type_counts"])))
            saved = FutureEvents(int(arrays["now_ms"]))
            last_ms = int(arrays["high_watermark_ms"])
            return RestoredState(state, users, int(arrays["offset"]), last_ms, 0, counts, saved)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # a full replay of the journal restores everything


def _fits(arrays: Mapping[str, NDArray[Any]], catalogue: Catalogue, spec: StateSpec, cutoff: ItemCutoff) -> bool:
    """Return whether a saved state is that of these items and settings.

    One that item events have changed is of one bundle only: the next one may have these changes in its catalogue.
    """
    is_same = arrays["compatibility"].tobytes() == _compatibility_digest(catalogue, spec)
    return is_same and (bool(arrays["is_as_catalogue"]) or ItemCutoff(*arrays["cutoff"].tolist()) == cutoff)


def _is_due(journal: OrderedJournal, restored: RestoredState, limit_ms: int) -> bool:
    """Return whether the time of an event has come that a snapshot left out, or that it should have left out."""
    saved_ms = restored.future.limit_ms
    if limit_ms < saved_ms:
        return restored.high_watermark_ms > limit_ms
    since = journal.read_by_effective_time(saved_ms + 1)
    until_now = takewhile(lambda entry: effective_time(entry[1]) <= limit_ms, since)
    return any(offset <= restored.offset for offset, _ in until_now)


def _is_in_order(event: Event, high_watermark_ms: int) -> bool:
    """Return whether an event comes after all events of a snapshot; an imported item event always does."""
    is_imported_item = isinstance(event, ItemEvent) and event.received is None
    return is_imported_item or effective_time(event) >= high_watermark_ms


def _compatibility_digest(catalogue: Catalogue, spec: StateSpec) -> bytes:
    """Return a digest of what a state's rows and columns depend on; snapshots with another one are ignored."""
    settings = json.dumps([VERSION, spec.to_dict(), USUAL_NAMES])
    digests = _digests.setdefault(catalogue, {})
    if settings not in digests:
        digests[settings] = _digest_of(catalogue, spec, settings)
    return digests[settings]


def _digest_of(catalogue: Catalogue, spec: StateSpec, settings: str) -> bytes:
    sha256 = hashlib.sha256(settings.encode())
    fields = [name for name in (counter.item_field for counter in spec.counters) if name not in ("", "item")]
    for array in (
        *catalogue.ids.to_arrays(), catalogue.category_codes, catalogue.category_offsets,
        *(part for name in fields for part in catalogue.field_codes(name)),
    ):  # fmt: skip
        sha256.update(np.ascontiguousarray(array).tobytes())
        sha256.update(b"|")
    return sha256.digest()
