"""Items that only ranking requests describe: which of them training leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from feedrank.engine.events.catalogue import RANK_ONLY, merge_fields
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import InteractionEvent, ItemEvent, RankingEvent, effective_time, valid_from
from feedrank.engine.journal.journal import Journal

DAY_MS = 86_400_000


def unused_rank_only(events: Sequence[ItemEvent], journal: Journal, days: int, now_ms: int) -> frozenset[str]:
    """Return the items that only ranking requests describe and that nothing used for some days.

    A use is an item event, a ranking or an interaction. events: all item events. days: 0: no item is left out. now_ms:
    epoch milliseconds.
    """
    if not days:
        return frozenset()
    since_ms = now_ms - days * DAY_MS
    idle = _rank_only(events) - {event.item for event in events if effective_time(event) >= since_ms}
    if idle:
        idle -= _used_since(journal, since_ms, idle)
    return frozenset(idle)


def _rank_only(events: Sequence[ItemEvent]) -> set[str]:
    """Return the items whose events all come from ranking requests."""
    candidates = {event.item for event in events if event.fields.get(RANK_ONLY)}
    fields: dict[str, dict[str, FieldValue]] = {item: {} for item in candidates}
    for event in sorted((event for event in events if event.item in candidates), key=valid_from):
        flag = {RANK_ONLY: event.fields[RANK_ONLY]} if RANK_ONLY in event.fields else {"": True}
        fields[event.item] = merge_fields(fields[event.item], flag)
    return {item for item, merged in fields.items() if merged.get(RANK_ONLY)}


def _used_since(journal: Journal, since_ms: int, items: set[str]) -> set[str]:
    """Return those of the items that rankings or interactions since a time name."""
    used: set[str] = set()
    for _, event in journal.read_by_effective_time(since_ms):
        if isinstance(event, RankingEvent):
            used.update(items.intersection(event.items))
        elif isinstance(event, InteractionEvent) and event.item in items:
            used.add(event.item)
    return used
