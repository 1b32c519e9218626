"""Checks the ids and times of the events of an import, and refuses a file whose times can't be right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median_low
from typing import Any

from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.times import UNIT_NAMES, guess_unit
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.codec import to_dict
from feedrank.engine.events.event_time import EARLIEST_MS, MAX_AHEAD_MS, check_is_of_a_log, format_time, limit_to_clock
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent, as_imported
from feedrank.engine.events.ids import ID_PARTS, MISSING_IDS, check_id

FIRST_EVENTS = 20_000
"""Events of a source whose times are looked at before the first of them is written."""
_OPTIONAL_IDS = ("user", "session", "ranking")


def check_events(
    events: Iterator[Event], rejects: Rejects, source: str, now_ms: int, advice: str | None = None
) -> Iterator[Event]:
    """Return an iterator of the events whose ids and times can be right; the others are rejected.

    Rejected are ids of more than 256 characters, words for a missing value as an id that is needed (elsewhere they are
    left out), events more than a day after `now_ms`, the importer's clock in epoch milliseconds, and interactions and
    rankings before 1990. Item and user events may have the time 0, which means always. An event less than a day ahead
    takes effect at `now_ms`. advice: what to do about such times; None: to give the unit.

    Raises ValueError at once, before the first event, if the times of the first 20,000 events have a median before 1990
    or more than a day ahead; and after the last event if no interaction or ranking had a time that can be right.
    """
    first, all_events = peek(((event, rejects.last_line) for event in events), FIRST_EVENTS)
    log = [event.timestamp for event, _ in first if isinstance(event, InteractionEvent | RankingEvent)]
    # Items and users, whose time may be any, count only in a file without a log.
    _check_median(log or [event.timestamp for event, _ in first if event.timestamp], source, now_ms, advice)
    return _checked(all_events, rejects, source, now_ms, advice)


def _checked(
    events: Iterable[tuple[Event, int]], rejects: Rejects, source: str, now_ms: int, advice: str | None
) -> Iterator[Event]:
    old, is_log_kept = 0, False
    wrong: list[int] = []
    for read, line in events:
        is_of_log = isinstance(read, InteractionEvent | RankingEvent)
        try:
            event = _with_checked_ids(read)
            if event is not read:
                rejects.tally("events with a word for a missing value as an id, such as NaN or null, read without it")
            try:
                check_is_of_a_log(event)
                event = limit_to_clock(event, now_ms)
                event = event if event.received is None else as_imported(event)
            except EventError:
                if is_of_log and len(wrong) < FIRST_EVENTS:
                    wrong.append(read.timestamp)
                raise
        except EventError as problem:
            rejects.revoke(source, line, str(problem), json.dumps(to_dict(read), ensure_ascii=False))
            continue
        is_log_kept |= is_of_log
        old += event.timestamp != 0 and event.timestamp < EARLIEST_MS
        yield event
    if not is_log_kept:
        _check_median(wrong, source, now_ms, advice, "None of its interactions and rankings was imported")
    if old:
        rejects.note(f"{old:,} item or user events are dated before 1990")


def _with_checked_ids(event: Event) -> Event:
    """Return an event without optional ids that are missing. Raises EventError for an id that can't be used.

    The event's own id may be longer than others if it is no ranking, as readers put it together from ids.
    """
    missing: dict[str, Any] = {}
    for name in ID_PARTS[0 if isinstance(event, RankingEvent) else 1 :]:
        identifier = getattr(event, name, None)
        if identifier is None:
            continue
        if identifier not in MISSING_IDS:
            check_id(identifier, name)
        elif name in _OPTIONAL_IDS and isinstance(event, InteractionEvent | RankingEvent):
            missing[name] = None
        else:
            raise EventError(name, f"found {identifier!r}, a word for a missing value, expected an id")
    if isinstance(event, RankingEvent):
        for index, identifier in enumerate(event.items):
            if identifier in MISSING_IDS:
                raise EventError(
                    f"items[{index}].id", f"found {identifier!r}, a word for a missing value, expected an id"
                )
            check_id(identifier, f"items[{index}].id")
    return replace(event, **missing) if missing else event


def _check_median(
    times: Sequence[int], source: str, now_ms: int, advice: str | None, left_out: str = "Nothing of it was imported"
) -> None:
    """Raise ValueError if the median of epoch milliseconds is implausible."""
    if not times or EARLIEST_MS <= (middle := median_low(times)) <= now_ms + MAX_AHEAD_MS:
        return
    unit = guess_unit(middle)
    if advice is None and unit not in (None, "ms"):
        advice = f"they look like {UNIT_NAMES[unit]}: give --time-unit {unit} or --time-unit auto"
    advice = advice or "give their unit with --time-unit, such as --time-unit auto, or correct them"
    raise ValueError(
        f"{source}: the times can't be right: their median is {middle}, which in epoch milliseconds is"
        f" {format_time(middle)}, expected a time from 1990 to now; {advice}. {left_out}"
    )
