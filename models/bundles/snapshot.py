"""A snapshot stores the behavioural state at a journal offset, so that a start replays only later events."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Protocol

import numpy as np

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import columns, in_order
from feedrank.engine.events.events import Event, forgotten, known_from
from feedrank.engine.events.vocabulary import Ids
from feedrank.features.state import BehaviouralState, StateSpec
from feedrank.models.atomic_files import written_aside

VERSION = 2
WORTH_SAVING = 10_000
"""Save a new snapshot after at least this many events since the last one."""


class OrderedLog(Protocol):
    """A journal that can be read from an offset, and as a whole by effective time."""

    @property
    def last(self) -> int:
        """Return the offset of the latest event, 0 if there is none."""
        ...

    def read(self, since: int = 0) -> Iterable[tuple[int, Event]]:
        """Yield (offset, event) after `since`, in offset order."""
        ...

    def in_order(self) -> Iterable[tuple[int, Event]]:
        """Yield (offset, event) by `effective_time`, then by offset."""
        ...


@dataclass(slots=True)
class Living:
    """A state that has replayed a journal up to an offset."""

    state: BehaviouralState
    people: Ids
    offset: int = 0
    latest: int = -(2**62)
    """Latest effective time of all replayed events, epoch milliseconds."""
    read: int = 0
    """Events replayed since the snapshot."""


def restore(path: Path, journal: OrderedLog, catalogue: Catalogue, spec: StateSpec, until: int | None = None) -> Living:
    """Restore the state of a journal from a compatible snapshot and the events after it, or by a full replay.

    last_offset: the offset of the last event to replay; None: all events.

    The whole journal is replayed if an event after the snapshot has an earlier effective time (an import of older
    events), if the snapshot has other items or settings or is damaged, or if its offset is beyond the journal (a
    restored backup). If a user was erased since the snapshot, the snapshot file is removed too.
    """
    end = journal.last if until is None else min(until, journal.last)
    restored = _load(path, catalogue, spec)
    if restored is not None and restored.offset <= end:
        tail = list(takewhile(lambda entry: entry[0] <= end, journal.read(restored.offset)))
        if any(forgotten(event) for _, event in tail):
            path.unlink(missing_ok=True)
        elif all(known_from(event) >= restored.latest for _, event in tail):
            restored.state.advance(columns((event for _, event in tail), catalogue.ids, restored.people))
            for offset, event in tail:
                restored.offset = max(restored.offset, offset)
                restored.latest = max(restored.latest, known_from(event))
            restored.read = len(tail)
            return restored
    restored = Living(BehaviouralState(catalogue, spec), Ids())
    entries = ((offset, event) for offset, event in journal.in_order() if offset <= end)
    restored.state.advance(in_order(_noted(entries, restored), catalogue.ids, restored.people))
    return restored


def save(path: Path, living: Living, catalogue: Catalogue) -> None:
    """Write a snapshot atomically. It contains user ids and histories, so protect it like the journal."""
    user_text, user_bounds = living.people.arrays()
    with written_aside(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            made_for=np.frombuffer(_digest(catalogue, living.state.spec), np.uint8),
            offset=np.int64(living.offset),
            latest=np.int64(living.latest),
            people=user_text,
            people_bounds=user_bounds,
            **{f"state.{name}": array for name, array in living.state.arrays().items()},
        )


def _load(path: Path, catalogue: Catalogue, spec: StateSpec) -> Living | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if arrays["made_for"].tobytes() != _digest(catalogue, spec):
                return None
            state = BehaviouralState(catalogue, spec)
            names = [name for name in arrays.files if name.startswith("state.")]
            state.restore({name.removeprefix("state."): arrays[name] for name in names})
            users = Ids.of(arrays["people"], arrays["people_bounds"])
            return Living(state, users, int(arrays["offset"]), int(arrays["latest"]))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # a full replay of the journal restores everything


def _noted(events: Iterable[tuple[int, Event]], living: Living) -> Iterable[Event]:
    for offset, event in events:
        living.offset = max(living.offset, offset)
        living.latest = max(living.latest, known_from(event))
        living.read += 1
        yield event


def _digest(catalogue: Catalogue, spec: StateSpec) -> bytes:
    """Return a digest of what a state's rows and columns depend on; snapshots with another one are ignored."""
    sha256 = hashlib.sha256(json.dumps([VERSION, spec.plain()]).encode())
    fields = [name for name in (counter.of for counter in spec.counters) if name not in ("", "item")]
    for array in (
        *catalogue.ids.arrays(), catalogue.category_codes, catalogue.category_offsets,
        *(part for name in fields for part in catalogue.codes(name)),
    ):  # fmt: skip
        sha256.update(np.ascontiguousarray(array).tobytes())
        sha256.update(b"|")
    return sha256.digest()
