"""Names of new bundles and models."""

from __future__ import annotations

import time
import uuid


def timestamped_name(prefix: str) -> str:
    """Build a unique name from a prefix, the UTC time and a random suffix."""
    return time.strftime(f"{prefix}-%Y%m%d-%H%M%S", time.gmtime()) + f"-{uuid.uuid4().hex[:4]}"
