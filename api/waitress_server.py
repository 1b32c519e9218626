"""Runs the server in one process with waitress, and ends it without losing a request that was accepted."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import WSGITask

from feedrank.api.waitress_limits import CallerLimits

LINGER_S = 0.5
"""Seconds that a stopping server still reads requests, which clients may be sending on connections kept open."""


class LastTask(WSGITask):  # type: ignore[misc]  # the library has no types
    """A request after which its connection is closed."""

    def __init__(self, channel: Any, request: Any) -> None:
        request.headers["CONNECTION"] = "close"
        super().__init__(channel, request)


class WaitressServer:
    """A server on one address, or on several if the host's name has several."""

    def __init__(self, app: Flask, address: tuple[str, int], threads: int, limits: CallerLimits) -> None:
        """Listen at an address. Raises OSError or ValueError if that is not possible."""
        self._server: Any = create_server(
            app, host=address[0], port=address[1], threads=threads, ident="feedrank", **limits.options
        )
        has_one_socket = hasattr(self._server, "effective_port")
        self._map: dict[int, Any] = self._server._map if has_one_socket else self._server.map
        limits.apply(self._map)
        self._is_stopping = False

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The hosts and ports that it listens on."""
        if hasattr(self._server, "effective_port"):
            return [(self._server.effective_host, self._server.effective_port)]
        return list(self._server.effective_listen)

    def serve(self, on_listening: Callable[[], None], max_wait_s: float) -> None:
        """Serve until SIGTERM or SIGINT; then wait for the requests under way, at most `max_wait_s` seconds."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        on_listening()
        while not self._is_stopping:
            self._turn(1.0)
        self._drain(max_wait_s)

    def _stop(self, number: int, frame: Any) -> None:
        """Leave the loop; a second signal ends the process at once."""
        signal.signal(number, signal.SIG_DFL)
        self._is_stopping = True
        for entry in list(self._map.values()):
            if isinstance(entry, BaseWSGIServer):
                entry.pull_trigger()

    def _drain(self, max_wait_s: float) -> None:
        """Accept what waits, answer it and close all connections."""
        for entry in list(self._map.values()):
            if isinstance(entry, BaseWSGIServer):
                while self._accept(entry):
                    pass
                wasyncore.dispatcher.close(entry)
        started = time.monotonic()
        while (waited := time.monotonic() - started) < max_wait_s:
            channels = [entry for entry in self._map.values() if isinstance(entry, HTTPChannel)]
            for channel in channels:
                channel.task_class = LastTask
            if not channels or (waited > LINGER_S and not any(map(_is_busy, channels))):
                break
            self._turn(0.02)
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=1)
        # the triggers end with the process: a thread that still runs writes to one, by a number that is soon reused
        open_channels = {number: entry for number, entry in self._map.items() if isinstance(entry, HTTPChannel)}
        wasyncore.close_all(open_channels, ignore_all=True)

    def _accept(self, entry: Any) -> bool:
        """Accept one connection; returns whether there was one."""
        before = len(self._map)
        entry.handle_accept()
        return len(self._map) > before

    def _turn(self, timeout: float) -> None:
        """Wait for events and handle them."""
        settings = self._server.adj
        wasyncore.loop(timeout=timeout, map=self._map, use_poll=settings.asyncore_use_poll, count=1)


def _is_busy(channel: Any) -> bool:
    """Return whether a connection has a request that has arrived whole, or an answer that is not sent."""
    return bool(channel.requests or channel.total_outbufs_len)
