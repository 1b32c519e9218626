"""Background work: a bounded queue that processes the newest task first, off the request path."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Task = TypeVar("Task")
_log = logging.getLogger(__name__)


class LatestFirstQueue(Generic[Task]):
    """A bounded last-in, first-out work queue with one worker thread; per key, only the latest task waits."""

    def __init__(
        self, work: Callable[[Task], object], max_waiting: int, thread_name: str = "feedrank-prefetch"
    ) -> None:
        """work: processes one task; its exceptions are counted and logged. max_waiting: bound of the queue."""
        self._work = work
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[str, Task] = OrderedDict()
        self._condition = threading.Condition()
        self._stopped = self._busy = False
        self.completed = self.dropped = self.failed = 0
        """Number of tasks that were processed, dropped because the queue was full, and failed."""
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)
        self._thread.start()

    def submit(self, key: str, task: Task) -> None:
        """Put a task at the front; it replaces a waiting one with the same key. A full queue drops its oldest task."""
        with self._condition:
            self._waiting[key] = task
            self._waiting.move_to_end(key)
            if len(self._waiting) > self._max_waiting:
                self._waiting.popitem(last=False)
                self.dropped += 1
            self._condition.notify_all()

    def wait(self, seconds: float) -> bool:
        """Block until the queue is empty and idle, or until the timeout; return True if it is idle."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._waiting and not self._busy, seconds)

    def stop(self) -> None:
        """Finish the running task, discard the waiting ones, and end the thread."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Number of waiting tasks."""
        return len(self._waiting)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                _, task = self._waiting.popitem()
                self._busy = True
            try:
                self._work(task)
            except Exception:  # the tasks that wait must still run
                self.failed += 1
                _log.exception("a background task failed; continuing with the next one")
            else:
                self.completed += 1
