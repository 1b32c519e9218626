"""Where a declared feature gets a value from: `item.price`, `request.device`, `user.recent(item.price)`, ..."""

from __future__ import annotations

import re
from dataclasses import dataclass

from feedrank.engine.events.field_forms import ITEM, SOURCES, USER

SESSION = "session"
"""The session itself, as a part of a key."""
RECENT = "recent"
"""The mean of a number of the items that the user lately interacted with."""
_FIELD = re.compile(rf"({'|'.join(SOURCES)})\.([^\s()][^()]*)")
_RECENT = re.compile(r"user\.recent\(item\.(\S[^)]*)\)")


@dataclass(frozen=True, slots=True)
class Source:
    """A field of an item, a user, a request or a list, or what the user's recent items have of it."""

    entity: str
    """One of SOURCES, SESSION or RECENT."""
    field: str
    """Name of the field; empty: the entity itself."""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Parse a source as the config writes it. Raises ValueError for another form."""
        if text in (ITEM, USER, SESSION):
            return cls(text, "")
        if match := _RECENT.fullmatch(text):
            return cls(RECENT, match[1])
        if match := _FIELD.fullmatch(text):
            return cls(match[1], match[2])
        raise ValueError(
            f"found the source {text!r}, expected a field such as item.price, user.country, request.device or "
            "list.distance, or user.recent(item.price)"
        )

    def __str__(self) -> str:
        if self.entity == RECENT:
            return f"user.recent(item.{self.field})"
        return f"{self.entity}.{self.field}" if self.field else self.entity
