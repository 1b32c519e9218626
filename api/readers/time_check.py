"""Checks the times of the events of an import, and refuses a file whose times can't be right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from statistics import median_low

from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.times import UNIT_NAMES, guess_unit
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import to_dict
from feedrank.engine.events.event_time import EARLIEST_MS, MAX_AHEAD_MS, check_is_of_a_log, format_time, limit_to_clock
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent, as_imported

FIRST_EVENTS = 20_000
"""Events of a source whose times are looked at before the first of them is written."""


def check_times(
    events: Iterator[Event], rejects: Rejects, source: str, now_ms: int, advice: str | None = None
) -> Iterator[Event]:
    """Yield the events whose times can be right; the others are rejected.

    Rejected are events more than a day after `now_ms`, the importer's clock in epoch milliseconds, and interactions and
    rankings before 1990. Item and user events may have the time 0, which means always. An event less than a day ahead
    takes effect at `now_ms`. advice: what to do about such times; None: to give the unit. Raises ValueError, before the
    first event, if the times of the first 20,000 events have a median before 1990 or more than a day ahead.
    """
    first, all_events = peek(((event, rejects.last_line) for event in events), FIRST_EVENTS)
    _check_median([event for event, _ in first], source, now_ms, advice)
    old = 0
    for event, line in all_events:
        try:
            check_is_of_a_log(event)
            old += event.timestamp != 0 and event.timestamp < EARLIEST_MS
            limited = limit_to_clock(event, now_ms)
            yield limited if limited.received is None else as_imported(limited)
        except EventError as problem:
            rejects.revoke(source, line, str(problem), json.dumps(to_dict(event), ensure_ascii=False))
    if old:
        rejects.note(f"{old:,} item or user events are dated before 1990")


def _check_median(events: Iterable[Event], source: str, now_ms: int, advice: str | None) -> None:
    """Raise ValueError if the median of the times is implausible; items and users count only in a file without log."""
    log, described = [], []
    for event in events:
        if isinstance(event, InteractionEvent | RankingEvent):
            log.append(event.timestamp)
        elif event.timestamp:
            described.append(event.timestamp)
    times = log or described
    if not times or EARLIEST_MS <= (middle := median_low(times)) <= now_ms + MAX_AHEAD_MS:
        return
    unit = guess_unit(middle)
    if advice is None and unit not in (None, "ms"):
        advice = f"they look like {UNIT_NAMES[unit]}: give --time-unit {unit} or --time-unit auto"
    advice = advice or "give their unit with --time-unit, such as --time-unit auto, or correct them"
    raise ValueError(
        f"{source}: the times can't be right: their median is {middle}, which in epoch milliseconds is"
        f" {format_time(middle)}, expected a time from 1990 to now; {advice}. Nothing of it was imported"
    )
