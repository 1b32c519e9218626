"""Decodes the rows of the journal. One that can't be decoded is passed over, logged and counted; it stops no reader.

A foreign program, an older version or a damaged disk may have written such a row.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from feedrank.engine.events.checks import EventError, short_repr
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event, without_foreign_fields
from feedrank.engine.journal.legacy import upgrade, without_unusable_numbers

MAX_LOGGED = 100
"""Rows that can't be decoded and that a process logs, one line each; it counts all of them."""
_log = logging.getLogger(__name__)


def decode(body: object) -> Event:
    """Decode the body of a row, in the names of today or of an older version.

    Fields that only the service may write, but did not, are left out; see `without_foreign_fields`. Raises ValueError
    for a body that can't be decoded.
    """
    if not isinstance(body, str):
        raise ValueError(f"the body is {short_repr(body)}, expected JSON text")
    try:
        decoded = json.loads(body)
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    if not isinstance(decoded, dict):
        raise ValueError(f"the body is {short_repr(decoded)}, expected a JSON object")
    return decode_object(decoded)


def decode_object(body: dict[str, Any]) -> Event:
    """Decode the JSON object of a row, as `decode` does. Raises ValueError."""
    try:
        event = upgrade(body)
        try:
            parsed = parse(event)
        except EventError:
            parsed = parse(without_unusable_numbers(event))
        return without_foreign_fields(parsed)
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    except (AttributeError, KeyError, OverflowError, TypeError) as problem:
        raise ValueError(f"a part of the body has another shape than expected: {problem}") from None


class EventDecoder:
    """Decodes the rows of one journal, and remembers those that it passed over."""

    def __init__(self) -> None:
        self._passed_over: set[int] = set()
        self._callback: Callable[[int], None] = lambda count: None

    @property
    def passed_over(self) -> frozenset[int]:
        """Offsets of the rows that were passed over."""
        return frozenset(self._passed_over)

    def pass_over(self, offsets: Iterable[int]) -> None:
        """Pass over rows that another decoder of this journal has named already."""
        self._passed_over.update(offsets)
        self._callback(len(self._passed_over))

    def on_passed_over(self, callback: Callable[[int], None]) -> None:
        """Register the callback for the number of rows passed over; it is called now and at each new one."""
        self._callback = callback
        callback(len(self._passed_over))

    def decode(self, offset: int, body: object) -> Event | None:
        """Decode the body of the row at an offset; None if it can't be decoded, which is logged once."""
        if offset in self._passed_over:
            return None
        try:
            return decode(body)
        except Exception as problem:  # whatever is wrong with one row, all others must be read
            self._passed_over.add(offset)
            if (count := len(self._passed_over)) <= MAX_LOGGED:
                more = "; further ones are only counted" if count == MAX_LOGGED else ""
                _log.error(
                    "passed over the event at offset %d of the journal, as it can't be read: %s; `feedrank journal"
                    " check` lists such events%s", offset, problem, more,
                )  # fmt: skip
            self._callback(count)
            return None

    def decode_rows(self, rows: Iterable[tuple[int, object]]) -> Iterator[tuple[int, Event]]:
        """Yield (offset, event) of the rows (offset, body) that can be decoded."""
        for offset, body in rows:
            if (event := self.decode(offset, body)) is not None:
                yield offset, event
