"""Limits on the connections of clients, for worker processes and for the single process."""

from __future__ import annotations

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

IDLE_TIMEOUT_S = 75.0
"""Seconds that a connection without a request stays open."""
MIN_BYTES_PER_S = 32 * 1024
"""A request or a response has a second more for each this many bytes."""
RESERVED_DESCRIPTORS = 128
"""File descriptors that are kept for files and database connections."""
MIN_CONNECTIONS = 10
"""Connections that are allowed even if the process may open hardly more files than the reserved ones."""


def allowed_connections(max_connections: int) -> int:
    """Return how many connections this process may have open: not more than its file descriptors suffice for."""
    if resource is None:
        return max_connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max_connections
    return min(max_connections, max(MIN_CONNECTIONS, soft - RESERVED_DESCRIPTORS))
