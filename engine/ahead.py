"""Work that is done off the path of any request: newest first, bounded, and counted where dropped."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

What = TypeVar("What")
_log = logging.getLogger(__name__)


class Ahead(Generic[What]):
    """One thread that does what is asked for, the latest asked first; under each name one thing waits at most."""

    def __init__(self, work: Callable[[What], object], size: int, name: str = "feedrank-ahead") -> None:
        """work: what it raises is counted, and the thread goes on. size: how many may wait. name: of the thread."""
        self._work = work
        self._size = size
        self._waiting: OrderedDict[str, What] = OrderedDict()
        self._change = threading.Condition()
        self._stopped = self._busy = False
        self.done = self.dropped = self.failed = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, name: str, what: What) -> None:
        """Put something first in line; what waited longest is dropped where the line is full."""
        with self._change:
            self._waiting[name] = what
            self._waiting.move_to_end(name)
            if len(self._waiting) > self._size:
                self._waiting.popitem(last=False)
                self.dropped += 1
            self._change.notify_all()

    def wait(self, seconds: float) -> bool:
        """Until nothing waits, or so long; whether nothing does."""
        with self._change:
            return self._change.wait_for(lambda: not self._waiting and not self._busy, seconds)

    def stop(self) -> None:
        """Finish what is under way, leave the rest, and end the thread."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """How much waits."""
        return len(self._waiting)

    def _run(self) -> None:
        while True:
            with self._change:
                self._busy = False
                self._change.notify_all()
                self._change.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                _, what = self._waiting.popitem()
                self._busy = True
            try:
                self._work(what)
            except Exception:  # whatever it is, what waits behind it is not worse for it
                self.failed += 1
                _log.exception("work off the path of a request failed; it goes on with the next")
            else:
                self.done += 1
