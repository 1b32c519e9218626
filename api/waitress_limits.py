"""Limits on callers for the single process under waitress: time for requests and responses, and open connections.

waitress reads and writes in its loop, so a slow client holds up no thread. It bounds neither the time of a request nor
keeps a connection free for others, and answers liveness routes behind all requests that wait for a thread.
"""

from __future__ import annotations

import json
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask

from feedrank.api.connection_limits import IDLE_TIMEOUT_S, MIN_BYTES_PER_S, allowed_connections

LIVENESS_PATHS = ("/healthz", "/health")
MAX_SELECT_CONNECTIONS = 400
"""Connections where the platform has no poll()."""
SPARE_CONNECTIONS = 100
"""Connections that are being closed while others are accepted; beyond them waitress would accept none."""


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """What one client may take of the server."""

    request_timeout_s: float
    max_connections: int
    max_body_bytes: int

    @property
    def options(self) -> dict[str, Any]:
        """Settings of waitress."""
        return {
            "asyncore_use_poll": hasattr(select, "poll"),
            "connection_limit": self.allowed_connections + SPARE_CONNECTIONS,
            "cleanup_interval": 1,
            "max_request_body_size": self.max_body_bytes + 1,  # the application refuses what is larger than its limit
        }

    @property
    def allowed_connections(self) -> int:
        """Open connections on this platform."""
        allowed = allowed_connections(self.max_connections)
        return allowed if hasattr(select, "poll") else min(allowed, MAX_SELECT_CONNECTIONS)

    def apply(self, entries: Mapping[int, Any]) -> None:
        """Set the limits of the servers in waitress's map of sockets."""
        for entry in entries.values():
            if isinstance(entry, BaseWSGIServer):
                guard = _Guard(entry, self)
                entry.channel_class = LimitedChannel
                entry.add_task, entry.maintenance, entry.limit_number = (
                    guard.add_task, guard.close_late, guard.limit_number,
                )  # fmt: skip


class ProblemTask(ErrorTask):  # type: ignore[misc]  # the library has no types
    """Answers a request that waitress refuses with a problem document."""

    def execute(self) -> None:
        """Write the response, and close the connection."""
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        body = {"type": "about:blank", "title": error.reason, "status": error.code, "detail": str(error.body)}
        content = json.dumps(body).encode()
        self.response_headers.append(("Content-Type", "application/problem+json"))
        self.set_close_on_finish()
        self.content_length = len(content)
        self.write(content)


class LimitedChannel(HTTPChannel):  # type: ignore[misc]  # the library has no types
    """A connection that knows since when its request arrives, and serves liveness requests in the loop."""

    error_task_class = ProblemTask
    began = 0.0
    """When the first bytes of the request arrived, by the monotonic clock."""
    received_bytes = 0
    is_receiving = is_urgent = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Open the connection; others are closed if there are too many."""
        super().__init__(*arguments, **options)
        self.server.limit_number()

    def received(self, data: bytes) -> bool:
        """Take bytes of a request."""
        if self.request is None:
            self.began, self.received_bytes = time.monotonic(), 0
        self.received_bytes += len(data)
        self.is_receiving = True
        try:
            taken: bool = super().received(data)
        finally:
            self.is_receiving = False
        if self.is_urgent:
            self.is_urgent = False
            self.service()
        return taken


class _Guard:
    """Replaces methods of a waitress server."""

    def __init__(self, server: Any, limits: CallerLimits) -> None:
        self._server, self._limits = server, limits

    def add_task(self, channel: Any) -> None:
        """Give a request to the threads, or let the loop answer it if it asks for liveness only."""
        request = channel.requests[0]
        if channel.is_receiving and request.error is None and request.path in LIVENESS_PATHS:
            channel.is_urgent = True
        else:
            self._server.task_dispatcher.add_task(channel)

    def close_late(self, _: float) -> None:
        """Close connections whose time is over."""
        now, wall = time.monotonic(), time.time()
        for channel in self._waiting():
            timeout = self._limits.request_timeout_s
            if channel.total_outbufs_len:
                is_late = wall - channel.last_activity > timeout
            elif channel.request is not None:
                is_late = now - channel.began > timeout + channel.received_bytes / MIN_BYTES_PER_S
            else:
                is_late = wall - channel.last_activity > IDLE_TIMEOUT_S
            if is_late:
                channel.will_close = True

    def limit_number(self) -> None:
        """Close the oldest connections that wait for their client if there are too many."""
        channels = [channel for channel in self._server.active_channels.values() if not channel.will_close]
        excess = len(channels) - self._limits.allowed_connections
        if excess > 0:
            waiting = sorted(self._waiting(), key=lambda channel: (channel.request is None, channel.last_activity))
            for channel in waiting[: max(excess, len(waiting) // 20)]:
                channel.will_close = True

    def _waiting(self) -> list[Any]:
        """Return the connections that have no whole request and are not being closed."""
        channels = list(self._server.active_channels.values())
        return [channel for channel in channels if not channel.requests and not channel.will_close]
