"""One event from a decoded body: `engine.events.parse`, and the checks that only a whole import can't do without."""

from __future__ import annotations

import math

from engine.events import Event, EventError, ItemEvent, parse, parse_timestamp


def parsed(body: object) -> Event:
    """The event of a decoded object; raises EventError, and nothing else.

    Beyond `parse`: numbers too large for a float, infinite fields, and a `published` that the catalogue could not read
    as a moment are found here, where the line is known, and not when the catalogue is built.
    """
    try:
        event = parse(body)
    except OverflowError:
        raise EventError("event", "holds a number that is too large, expected at most about 1e308") from None
    for name, value in event.fields.items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise EventError(f"fields.{name}", f"found {value!r}, expected finite numbers")
    if isinstance(event, ItemEvent) and (moment := event.fields.get("published", "")) != "":
        try:
            parse_timestamp(moment)
        except EventError as problem:
            raise EventError("fields.published", str(problem).removeprefix("timestamp: ")) from None
    return event
