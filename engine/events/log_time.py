"""The earliest time that an interaction or a ranking can have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from feedrank.engine.events.checks import EventError
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent

EARLIEST_MS = 631_152_000_000
"""1990-01-01 in epoch milliseconds: no log of interactions is older, and seconds read as milliseconds are in 1970."""


def check_is_of_a_log(event: Event, advice: str = "multiply seconds by 1000") -> None:
    """Check that an interaction or a ranking is not dated before 1990. Raises EventError, which ends with `advice`.

    Item and user events may have any time; 0 means always.
    """
    if event.timestamp < EARLIEST_MS and isinstance(event, InteractionEvent | RankingEvent):
        day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=max(event.timestamp, -60_000_000_000_000))
        raise EventError(
            "timestamp",
            f"found {event.timestamp} ({day:%Y-%m-%d}), expected when the event happened, from 1990 on, in epoch"
            f" milliseconds; {advice}",
        )
