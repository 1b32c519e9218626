"""Checks that a reader gives valid events, the same ones each time, and reports what it can't read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import Event


def check_reader(read: Callable[[Path, Any], Iterable[Event]], path: Path, rejected: int = 0) -> list[Event]:
    """Check a reader on a small file of its format, and return the events.

    read: the reader, a function of (path, rejects). rejected: number of lines in the file that it must reject. Checks
    that the events are valid and in the same order with the same ids each time, that no id occurs twice, and that each
    reject has a source, a line number and a reason. Raises AssertionError.
    """
    rejects = _Rejects()
    events = _read(read, path, rejects)
    for number, event in enumerate(events, 1):
        try:
            checked = to_dict(parse(to_dict(event)))
        except (ValueError, TypeError, AttributeError) as problem:
            raise AssertionError(f"event {number} is invalid: {problem}; found {event}") from None
        if checked != to_dict(event):
            raise AssertionError(f"event {number} is not as JSON holds it: found {to_dict(event)}, expected {checked}")
    if not events and not rejects.lines:
        raise AssertionError(f"found no event and no rejected line in {path}, expected at least one")
    repeated = [name for name, count in Counter(event.id for event in events).items() if count > 1]
    if repeated:
        raise AssertionError(f"found the ids {repeated[:5]} more than once; an import stores such an event only once")
    if len(rejects.lines) != rejected:
        raise AssertionError(f"found {len(rejects.lines)} rejected lines, expected {rejected}: {rejects.lines[:5]}")
    again = _read(read, path, _Rejects())
    for number, (first, second) in enumerate(zip(events, again, strict=False), 1):
        if to_dict(first) != to_dict(second):
            raise AssertionError(
                f"event {number} differs when the file is read again: found {second}, expected {first}; an import that "
                "is repeated or resumed would store events twice or lose some"
            )
    if len(again) != len(events):
        raise AssertionError(f"found {len(again)} events when the file is read again, expected {len(events)}")
    return events


class _Rejects:
    """Collects rejected lines, in the shape of the collector that an import passes."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, str]] = []
        self.accepted = 0

    @property
    def rejected(self) -> int:
        return len(self.lines)

    def tally(self, what: str, count: int = 1) -> None:
        """Ignore what the report of an import would say of accepted records."""

    def note(self, *sentences: str) -> None:
        """Ignore what the report of an import would say of the file."""

    def accept(self, line_number: int = 0) -> None:
        self.accepted += 1

    def reject(self, source: str, line_number: int, reason: str, line: str | bytes = "") -> None:
        if not (isinstance(source, str) and source and isinstance(reason, str) and reason):
            raise AssertionError(f"found the reject ({source!r}, {reason!r}), expected a source and a reason")
        if not isinstance(line_number, int) or line_number < 0:
            raise AssertionError(f"found the line number {line_number!r}, expected a number from 1, or 0 for none")
        if not isinstance(line, str | bytes):
            raise AssertionError(f"found the line {line!r}, expected text")
        self.lines.append((source, line_number, reason))


def _read(read: Callable[[Path, Any], Iterable[Event]], path: Path, rejects: _Rejects) -> list[Event]:
    events = read(path, rejects)
    if not isinstance(events, Iterable):
        raise AssertionError(f"the reader returned {type(events).__name__}, expected an iterator of events")
    found = list(events)
    for number, event in enumerate(found, 1):
        if not isinstance(event, Event):
            raise AssertionError(
                f"event {number} is {type(event).__name__}, expected an event of feedrank.engine.events.events"
            )
    return found
