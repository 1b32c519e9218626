"""Snapshots: the behavioural state as of an offset of the journal, so that a start reads only what came after it."""

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

from engine.catalogue import Catalogue
from engine.events import Event, forgotten, known_from
from engine.ids import Ids
from engine.log import columns, in_order
from features.state import BehaviouralState, StateSpec
from models.files import written_aside

VERSION = 2
WORTH_SAVING = 10_000
"""Events read since the last snapshot that make a new one worth its while."""


class OrderedLog(Protocol):
    """A journal that can be read on from an offset, and whole in the order in which events became known."""

    @property
    def last(self) -> int:
        """The offset of the latest event, 0 where there is none."""
        ...

    def read(self, since: int = 0) -> Iterable[tuple[int, Event]]:
        """(offset, event) in the order of writing."""
        ...

    def in_order(self) -> Iterable[tuple[int, Event]]:
        """(offset, event) by `known_from`, then by offset."""
        ...


@dataclass(slots=True)
class Living:
    """A state that has read a journal up to an offset."""

    state: BehaviouralState
    people: Ids
    offset: int = 0
    latest: int = -(2**62)
    """Epoch milliseconds: nothing that was read became known after this."""
    read: int = 0
    """Events read since the snapshot."""


def restore(path: Path, journal: OrderedLog, catalogue: Catalogue, spec: StateSpec, until: int | None = None) -> Living:
    """The state of a journal: the snapshot, where there is a fitting one, and what was written after it.

    until: the offset of the last event that counts; None: all do.

    What was written after it but became known before (an import of older events) would stand in another order; then,
    and where the snapshot is of other items, of other settings or damaged, or of a journal that had more than this one
    (a backup, put back), the whole journal is read. A snapshot of somebody who was forgotten since is removed.
    """
    last = journal.last if until is None else min(until, journal.last)
    living = _load(path, catalogue, spec)
    if living is not None and living.offset <= last:
        tail = list(takewhile(lambda one: one[0] <= last, journal.read(living.offset)))
        if any(forgotten(event) for _, event in tail):
            path.unlink(missing_ok=True)
        elif all(known_from(event) >= living.latest for _, event in tail):
            living.state.advance(columns((event for _, event in tail), catalogue.ids, living.people))
            for offset, event in tail:
                living.offset = max(living.offset, offset)
                living.latest = max(living.latest, known_from(event))
            living.read = len(tail)
            return living
    living = Living(BehaviouralState(catalogue, spec), Ids())
    counting = ((offset, event) for offset, event in journal.in_order() if offset <= last)
    living.state.advance(in_order(_noted(counting, living), catalogue.ids, living.people))
    return living


def save(path: Path, living: Living, catalogue: Catalogue) -> None:
    """Write a snapshot; nobody ever sees half of one. People are in it: it is as private as the journal."""
    text, bounds = living.people.arrays()
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            made_for=np.frombuffer(_digest(catalogue, living.state.spec), np.uint8),
            offset=np.int64(living.offset),
            latest=np.int64(living.latest),
            people=text,
            people_bounds=bounds,
            **{f"state.{name}": array for name, array in living.state.arrays().items()},
        )


def _load(path: Path, catalogue: Catalogue, spec: StateSpec) -> Living | None:
    try:
        with np.load(path, allow_pickle=False) as found:
            if found["made_for"].tobytes() != _digest(catalogue, spec):
                return None
            state = BehaviouralState(catalogue, spec)
            names = [name for name in found.files if name.startswith("state.")]
            state.restore({name.removeprefix("state."): found[name] for name in names})
            people = Ids.of(found["people"], found["people_bounds"])
            return Living(state, people, int(found["offset"]), int(found["latest"]))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # the journal has it all


def _noted(events: Iterable[tuple[int, Event]], living: Living) -> Iterable[Event]:
    for offset, event in events:
        living.offset = max(living.offset, offset)
        living.latest = max(living.latest, known_from(event))
        living.read += 1
        yield event


def _digest(catalogue: Catalogue, spec: StateSpec) -> bytes:
    """What a state's rows and columns depend on."""
    made = hashlib.sha256(json.dumps([VERSION, spec.plain()]).encode())
    fields = [name for name in (counter.of for counter in spec.counters) if name not in ("", "item")]
    for array in (
        *catalogue.ids.arrays(), catalogue.category_codes, catalogue.category_offsets,
        *(part for name in fields for part in catalogue.codes(name)),
    ):  # fmt: skip
        made.update(np.ascontiguousarray(array).tobytes())
        made.update(b"|")
    return made.digest()
