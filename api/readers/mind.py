"""MIND, the Microsoft News Dataset: news.tsv and behaviors.tsv.

Wu et al., MIND: A Large-scale Dataset for News Recommendation, ACL 2020.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from api.readers import lines
from api.readers.folders import Folder
from api.readers.rejects import Rejects
from engine.events import Event, FieldValue, InteractionEvent, ItemEvent, RankingEvent

_TIME = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{2}):(\d{2}) ([AP])M", re.ASCII)


def read(path: Path, rejects: Rejects) -> Iterator[Event]:
    """The news as item events at time 0, then the impression lists in order of time (stable), each with its clicks.

    Before a user's first list comes its history column as interactions of type "history", oldest first, at the time of
    that list. The times of the files name no zone and are taken as UTC. Clicks carry no position, because the authors
    shuffled the order of each list. Lists without labels (the test set) give no clicks. `path` is a folder or a zip
    with both files, packed or not; ValueError if one is missing.
    """
    with Folder(path) as folder:
        news, behaviours = _needed(folder, "news.tsv"), _needed(folder, "behaviors.tsv")
        yield from _news(folder, news, rejects)
        yield from _behaviours(folder, behaviours, rejects)


def recognise(folder: Folder) -> bool:
    """Does the folder hold impression lists of MIND?"""
    return folder.find("behaviors.tsv") is not None


def _needed(folder: Folder, name: str) -> str:
    found = folder.find(name)
    if found is None:
        raise ValueError(f"{folder.path} holds no {name} (.gz, .zst); expected news.tsv and behaviors.tsv side by side")
    return found


def _news(folder: Folder, name: str, rejects: Rejects) -> Iterator[ItemEvent]:
    source = folder.source(name)
    seen: set[str] = set()
    with folder.open(name) as stream:
        for number, text in lines.decode(stream, source, rejects):
            if not text.strip():
                continue
            cells = [cell.strip() for cell in text.split("\t")]
            if len(cells) < 5:
                rejects.reject(source, number, f"columns: found {len(cells)}, expected 8 (at least 5)", text)
                continue
            item, category, subcategory, title, abstract = cells[:5]
            if not item or item in seen:
                reason = f"item {item!r} stands in this file twice" if item else "found no id, expected a news id first"
                rejects.reject(source, number, reason, text)
                continue
            seen.add(item)
            rejects.accept()
            parts: dict[str, FieldValue] = {
                "title": title,
                "text": abstract,
                "category": [category] if category else [],
                "subcategory": subcategory,
            }
            yield ItemEvent(f"item:{item}", 0, item, {name: part for name, part in parts.items() if part})


class _List(NamedTuple):
    """One impression list, its last column still as text: that is smaller, and a whole log is held to be sorted."""

    at: int
    """Epoch milliseconds."""
    id: str
    user: str
    impressions: str


def _behaviours(folder: Folder, name: str, rejects: Rejects) -> Iterator[Event]:
    source = folder.source(name)
    lists: list[_List] = []
    seen: set[str] = set()
    firsts: dict[str, tuple[int, str]] = {}
    with folder.open(name) as stream:
        for number, text in lines.decode(stream, source, rejects):
            if not text.strip():
                continue
            try:
                shown, history = _list(text)
                if shown.id in seen:
                    raise ValueError(f"impression {shown.id!r} stands in this file twice")
            except ValueError as problem:
                rejects.reject(source, number, str(problem), text)
                continue
            seen.add(shown.id)
            rejects.accept()
            lists.append(shown)
            if shown.user not in firsts or shown.at < firsts[shown.user][0]:
                firsts[shown.user] = shown.at, history
    lists.sort(key=lambda shown: shown.at)
    for shown in lists:
        # Popped, so that the history comes before the first list only.
        for place, item in enumerate(firsts.pop(shown.user, (0, ""))[1].split(), 1):
            yield InteractionEvent(f"history:{shown.user}:{place}", shown.at, item, "history", user=shown.user)
        yield from _events(shown)


def _events(shown: _List) -> Iterator[Event]:
    items, labels = _impressions(shown.impressions)
    ranking = f"ranking:{shown.id}"
    yield RankingEvent(ranking, shown.at, items, user=shown.user, labels=labels)
    for item, label in zip(items, labels or (), strict=False):
        if label:
            click = f"click:{shown.id}:{item}"
            yield InteractionEvent(click, shown.at, item, "click", ranking=ranking, user=shown.user)


def _list(text: str) -> tuple[_List, str]:
    """The impression list of a line, and its history column; raises ValueError."""
    cells = text.split("\t")
    if len(cells) != 5:
        raise ValueError(f"columns: found {len(cells)}, expected 5")
    impression, user, time, history, impressions = (cell.strip() for cell in cells)
    if not impression or not user:
        raise ValueError(f"found no {'user' if impression else 'impression id'}, expected one")
    _impressions(impressions)
    return _List(_epoch_ms(time), impression, user, impressions), history


def _impressions(text: str) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Items in order, and their labels: all have one ("N1-0 N2-1") or none has ("N1 N2")."""
    tokens = text.split()
    if not tokens:
        raise ValueError("impressions: found nothing, expected tokens such as N123-0")
    labelled = "-" in tokens[0]
    items: list[str] = []
    labels: list[float] = []
    for token in tokens:
        item, dash, label = token.rpartition("-") if labelled else (token, "", "")
        if not item or (labelled and (not dash or label not in ("0", "1"))) or (not labelled and "-" in token):
            raise ValueError(f"impressions: found {token!r}, expected N123-0 or N123-1, or N123 throughout")
        items.append(item)
        labels.append(1.0 if label == "1" else 0.0)
    if len(set(items)) < len(items):
        twice = next(item for place, item in enumerate(items) if item in items[:place])
        raise ValueError(f"impressions: {twice!r} stands in the list twice")
    return tuple(items), tuple(labels) if labelled else None


def _epoch_ms(text: str) -> int:
    if found := _TIME.fullmatch(text):
        month, day, year, hour, minute, second = map(int, found.groups()[:6])
        try:
            # 12 AM is midnight and 12 PM noon, so 12 counts as 0.
            if not 1 <= hour <= 12:
                raise ValueError
            moment = datetime(year, month, day, hour % 12 + 12 * (found[7] == "P"), minute, second, tzinfo=UTC)
        except ValueError:
            pass
        else:
            return round(moment.timestamp() * 1000)
    raise ValueError(f"time: found {text!r}, expected M/D/YYYY h:mm:ss AM or PM")
