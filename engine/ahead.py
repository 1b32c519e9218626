"""Work for the next request of a person, done off the path of any: newest first, bounded, and counted where dropped."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Ahead:
    """One thread that does what is asked for people, the latest asked first; each person waits once at most."""

    def __init__(self, work: Callable[[str], object], size: int) -> None:
        """work: called with a person's id; what it raises is counted, and the thread goes on. size: who may wait."""
        self._work = work
        self._size = size
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._change = threading.Condition()
        self._stopped = self._busy = False
        self.done = self.dropped = self.failed = 0
        self._thread = threading.Thread(target=self._run, name="feedrank-ahead", daemon=True)
        self._thread.start()

    def ask(self, user: str) -> None:
        """Put a person first in line; who waited longest is dropped where the line is full."""
        with self._change:
            self._waiting[user] = None
            self._waiting.move_to_end(user)
            if len(self._waiting) > self._size:
                self._waiting.popitem(last=False)
                self.dropped += 1
            self._change.notify_all()

    def wait(self, seconds: float) -> bool:
        """Until nobody waits, or so long; whether nobody does."""
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
        """How many people wait."""
        return len(self._waiting)

    def _run(self) -> None:
        while True:
            with self._change:
                self._busy = False
                self._change.notify_all()
                self._change.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                user, _ = self._waiting.popitem()
                self._busy = True
            try:
                self._work(user)
            except Exception:  # whatever it is, the next person's feed is not worse for it
                self.failed += 1
                _log.exception("work ahead of a request failed; it goes on with the next person")
            else:
                self.done += 1
