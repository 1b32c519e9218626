"""What is known of a journal besides its fields, for suggestions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a journal besides its fields."""

    of: tuple[str, ...] = ("click",)
    """The interaction types that rates and shares count."""
    has_rankings: bool = True
    """Whether impressions are logged, which rates need."""
    has_queries: bool = False
    documents: Collection[str] = ()
    """Item fields that the text signals compare with queries."""
    taken: Collection[str] = ()
    """Names of features that exist."""
    declared: Collection[str] = ()
    """Fields that the config's own declared features read, such as item.price."""
