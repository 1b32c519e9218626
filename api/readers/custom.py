"""A reader of the user's own, named as "package.module:function"; the events that it gives are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import canonical_event
from feedrank.engine.plugins import check_call, load_plugin


class CustomReader:
    """Calls a reader of the user's own, checks each event and counts it."""

    def __init__(self, path: str) -> None:
        """Import the function at "package.module:function". Raises ValueError if it can't be used."""
        self.path = path
        self._read: Callable[..., Any] = load_plugin(path, "the reader", "function")
        check_call(self._read, f"the reader {path!r}", ("path", "rejects"), {})

    def __call__(self, path: Path, rejects: Rejects) -> Iterator[Event]:
        """Yield the valid events of a file or folder; the others go to `rejects`.

        Raises ValueError if the reader returns no iterator, or yields something that is no event.
        """
        events = self._read(path, rejects)
        if not isinstance(events, Iterable):
            raise ValueError(
                f"the reader {self.path!r} returned {type(events).__name__}, expected an iterator of events; use yield"
            )
        return self._checked(events, str(path), rejects)

    def _checked(self, events: Iterable[Any], source: str, rejects: Rejects) -> Iterator[Event]:
        accepted = 0
        for number, event in enumerate(events, 1):
            if not isinstance(event, Event):
                raise ValueError(
                    f"the reader {self.path!r} yielded {type(event).__name__} as its event {number}, expected an event "
                    "of feedrank.engine.events.events; `parse` of feedrank.engine.events.codec makes one from a dict"
                )
            try:
                checked = parse(canonical_event(to_dict(event)))
            except (ValueError, TypeError, AttributeError) as problem:  # the fields may hold anything
                rejects.reject(source, number, f"{self.path} yielded an invalid event: {problem}", repr(event))
            else:
                accepted += 1
                yield checked
        rejects.accepted = accepted  # counted here, whether the reader counts or not
