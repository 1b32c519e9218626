"""Say in sentences what an import rejected, assumed and found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from feedrank.api.id_matching import KnownIds, look_alikes
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.interaction_types import InteractionTypes, unlisted_warning

SHOWN_REASONS = 10
SHOWN_TYPES = 10
"""Entries of a list that are named."""


def erased_lines(count: int) -> Iterator[str]:
    """Yield what was left out since its user was erased."""
    if count:
        yield f"{count:,} events of erased users were left out; --include-erased takes them in"


def repeated_lines(count: int, taken: Sequence[str]) -> Iterator[str]:
    """Yield what happened to events whose id was stored before; taken: ids under which other events are stored."""
    if count:
        yield f"{count:,} events have an id that was stored before; they were not stored again"
    if taken:
        named = ", ".join(map(repr, taken[:3]))
        yield f"warning: of the first of these, {len(taken)} differ from the stored event of their id, such as {named}"


def reject_lines(rejects: Rejects) -> Iterator[str]:
    """Yield the most frequent reasons in full, each with its first line."""
    reasons = list(rejects.reasons().items())
    for reason, count in reasons[:SHOWN_REASONS]:
        line, example = rejects.example(reason)
        yield f"rejected {count:,}: {example}" + (f" (line {line})" if line else "")
    if more := sum(count for _, count in reasons[SHOWN_REASONS:]):
        yield f"rejected {more:,} for {len(reasons) - SHOWN_REASONS} further reasons"


def type_lines(types: Mapping[str, int], meanings: InteractionTypes) -> Iterator[str]:
    """Yield the most frequent interaction types, and a warning about those whose meaning nothing says."""
    if types:
        most = sorted(types.items(), key=lambda entry: -entry[1])[:SHOWN_TYPES]
        more = f" and {len(types) - SHOWN_TYPES} more types" if len(types) > SHOWN_TYPES else ""
        yield "interaction types: " + ", ".join(f"{name} {count:,}" for name, count in most) + more
    if warning := unlisted_warning(types, meanings):
        yield f"warning: {warning}"


def look_alike_lines(known: KnownIds) -> Iterator[str]:
    """Yield a warning about ids that differ in spelling only."""
    if pairs := look_alikes(known):
        named = ", ".join(f"{made!r} and {described!r}" for made, described in pairs)
        yield f"warning: items that were made of ids look like items that are described: {named}; write ids alike"
