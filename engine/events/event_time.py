"""Bounds the times of events: none is older than logs are, and nothing that is stored takes effect before its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from feedrank.engine.events.checks import EventError
from feedrank.engine.events.erasure import Erasure
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent, effective_time

EARLIEST_MS = 631_152_000_000
"""1990-01-01 in epoch milliseconds: no log of interactions is older, and seconds read as milliseconds are in 1970."""
MAX_AHEAD_MS = 86_400_000
"""Epoch milliseconds that an event may be ahead of the clock: one day, for clocks and zones that are set wrong."""
NO_CLOCK = 2**61
"""A clock that nothing is ahead of, in epoch milliseconds."""
MAX_EXAMPLES = 3
"""Number of future events that a report names."""
MAX_POSTPONED = 10_000
"""Number of future events that a process keeps in memory."""


def check_is_of_a_log(event: Event) -> None:
    """Check that an interaction or a ranking is not dated before 1990. Raises EventError.

    Item and user events may have any time; 0 means always.
    """
    if event.timestamp < EARLIEST_MS and isinstance(event, InteractionEvent | RankingEvent):
        raise EventError(
            "timestamp",
            f"found {event.timestamp} ({format_time(event.timestamp)}), expected when the event happened, from 1990 on,"
            " in epoch milliseconds; seconds are a thousandth of that",
        )


def check_not_ahead(event: Event, now_ms: int) -> None:
    """Check that no time of an event is more than a day ahead of the clock. Raises EventError that names the field.

    now_ms: the clock of the service or of the importer, in epoch milliseconds.
    """
    for name, time_ms in (("timestamp", event.timestamp), ("received", event.received)):
        if time_ms is not None and time_ms > now_ms + MAX_AHEAD_MS:
            raise EventError(
                name,
                f"found {time_ms} ({format_time(time_ms)}), more than a day after now ({format_time(now_ms)}); expected"
                " when the event happened, in epoch milliseconds or ISO-8601",
            )


def limit_to_clock(event: Event, now_ms: int) -> Event:
    """Return an event of an import so that it takes effect now at the latest; what is not ahead stays unchanged.

    Its timestamp stays, and `received` becomes `now_ms`. Raises EventError as `check_not_ahead` does.
    """
    if event.timestamp <= now_ms and (event.received is None or event.received <= now_ms):
        return event
    check_not_ahead(event, now_ms)
    return event if effective_time(event) <= now_ms else replace(event, received=now_ms)


def format_time(time_ms: int) -> str:
    """Format epoch milliseconds as UTC, such as 2025-11-09 18:00:00; years that no calendar has stay a number."""
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return f"{time_ms} ms"


@dataclass(slots=True)
class FutureEvents:
    """Passes over events that are more than a day ahead of a clock until their time has come; counts and names them."""

    now_ms: int
    """The clock, in epoch milliseconds."""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    """The first of them, at most `MAX_EXAMPLES`: id and time."""
    postponed: list[Event] = field(default_factory=list)
    """Those whose time has not come, at most `MAX_POSTPONED`; any others take effect after a restart."""

    @classmethod
    def of(cls, now_ms: int, events: Iterable[Event]) -> FutureEvents:
        """Count and name those of the events that are ahead of the clock."""
        future = cls(now_ms)
        for event in events:
            future.is_ahead(event)
        return future

    def erase(self, erasure: Erasure) -> None:
        """Forget the postponed events of an erased user."""
        self.postponed = [event for event in self.postponed if not erasure.concerns(event)]

    @property
    def limit_ms(self) -> int:
        """The latest effective time that is not passed over, in epoch milliseconds."""
        return self.now_ms + MAX_AHEAD_MS

    def is_ahead(self, event: Event) -> bool:
        """Return whether an event is more than a day ahead; count, name and postpone it if it is."""
        time_ms = effective_time(event)
        if time_ms <= self.limit_ms:
            return False
        self.count += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{event.id!r} at {format_time(time_ms)}")
        if len(self.postponed) < MAX_POSTPONED:
            self.postponed.append(event)
        return True

    def skip(self, entries: Iterable[tuple[int, Event]]) -> Iterator[tuple[int, Event]]:
        """Yield the (offset, event) pairs without those that are passed over."""
        return (entry for entry in entries if not self.is_ahead(entry[1]))

    def has_due(self, now_ms: int) -> bool:
        """Return whether the time of a postponed event has come."""
        return any(effective_time(event) <= now_ms + MAX_AHEAD_MS for event in self.postponed)

    def release(self, now_ms: int) -> list[Event]:
        """Set the clock; return the postponed events whose time has come, by their time, and forget them."""
        self.now_ms = now_ms
        if not self.postponed:
            return []
        due = [event for event in self.postponed if effective_time(event) <= self.limit_ms]
        if due:
            self.postponed = [event for event in self.postponed if effective_time(event) > self.limit_ms]
        return sorted(due, key=effective_time)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, in a sentence; empty if nothing was."""
        if not self.count:
            return ()
        events = "event" if self.count == 1 else "events"
        more = ", ..." if self.count > len(self.examples) else ""
        wait = " and the process starts again" if self.count > MAX_POSTPONED else ""
        return (
            f"passed over {self.count:,} {events} more than a day ahead of the clock, until their time has"
            f" come{wait}: {', '.join(self.examples)}{more}",
        )
