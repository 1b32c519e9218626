"""Read MIND, the Microsoft News Dataset: news.tsv and behaviors.tsv.

Wu et al., MIND: A Large-scale Dataset for News Recommendation, ACL 2020.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from feedrank.api.readers import lines
from feedrank.api.readers.folders import Folder
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent, RankingEvent

_TIME = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{2}):(\d{2}) ([AP])M", re.ASCII)


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the news as item events at time 0, then the rankings in time order (stable), each with its clicks.

    A user's first ranking is preceded by its history column, as interactions of type "history", oldest first, at the
    time of that ranking. The file's times have no zone and are read as UTC. Clicks have no position, because the
    authors shuffled each ranking. Rankings without labels (the test set) have no clicks. `path` is a folder or a zip
    with both files, compressed or not. Raises ValueError if one is missing.
    """
    with Folder(path) as folder:
        news, behaviours = _required_file(folder, "news.tsv"), _required_file(folder, "behaviors.tsv")
        yield from _news_items(folder, news, rejects)
        yield from _rankings(folder, behaviours, rejects)


def is_mind(folder: Folder) -> bool:
    """Return whether the folder holds MIND's impression log."""
    return folder.find("behaviors.tsv") is not None


def _required_file(folder: Folder, name: str) -> str:
    found = folder.find(name)
    if found is None:
        raise ValueError(f"{folder.path} has no {name} (.gz, .zst); expected news.tsv and behaviors.tsv in one folder")
    return found


def _news_items(folder: Folder, name: str, rejects: Rejects) -> Iterator[ItemEvent]:
    source = folder.source(name)
    seen: set[str] = set()
    with folder.open(name) as stream:
        for number, text in lines.decode_lines(stream, source, rejects):
            if not text.strip():
                continue
            cells = [cell.strip() for cell in text.split("\t")]
            if len(cells) < 5:
                rejects.reject(source, number, f"columns: found {len(cells)}, expected 8 (at least 5)", text)
                continue
            item, category, subcategory, title, abstract = cells[:5]
            if not item or item in seen:
                reason = f"item {item!r} is in this file twice" if item else "found no id, expected a news id first"
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


class _LoggedRanking(NamedTuple):
    """One ranking; its impressions stay text, which is smaller, because the whole log is held in memory for sorting."""

    timestamp_ms: int
    """Epoch milliseconds."""
    id: str
    user: str
    impressions: str
    """Tokens of items and labels, such as "N1-0 N2-1"."""


def _rankings(folder: Folder, name: str, rejects: Rejects) -> Iterator[Event]:
    source = folder.source(name)
    rankings: list[_LoggedRanking] = []
    seen: set[str] = set()
    first_history: dict[str, tuple[int, str]] = {}
    with folder.open(name) as stream:
        for number, text in lines.decode_lines(stream, source, rejects):
            if not text.strip():
                continue
            try:
                ranking, history = _parse_ranking(text)
                if ranking.id in seen:
                    raise ValueError(f"impression {ranking.id!r} is in this file twice")
            except ValueError as problem:
                rejects.reject(source, number, str(problem), text)
                continue
            seen.add(ranking.id)
            rejects.accept()
            rankings.append(ranking)
            if ranking.user not in first_history or ranking.timestamp_ms < first_history[ranking.user][0]:
                first_history[ranking.user] = ranking.timestamp_ms, history
    rankings.sort(key=lambda ranking: ranking.timestamp_ms)
    for ranking in rankings:
        # Popped, so that the history precedes the user's first ranking only.
        for number, item in enumerate(first_history.pop(ranking.user, (0, ""))[1].split(), 1):
            yield InteractionEvent(
                f"history:{ranking.user}:{number}", ranking.timestamp_ms, item, "history", user=ranking.user
            )
        yield from _ranking_events(ranking)


def _ranking_events(ranking: _LoggedRanking) -> Iterator[Event]:
    items, labels = _parse_impressions(ranking.impressions)
    ranking_id = f"ranking:{ranking.id}"
    yield RankingEvent(ranking_id, ranking.timestamp_ms, items, user=ranking.user, labels=labels)
    for item, label in zip(items, labels or (), strict=False):
        if label:
            click = f"click:{ranking.id}:{item}"
            yield InteractionEvent(click, ranking.timestamp_ms, item, "click", ranking=ranking_id, user=ranking.user)


def _parse_ranking(text: str) -> tuple[_LoggedRanking, str]:
    """Parse the ranking of a line; return it with its history column. Raises ValueError."""
    cells = text.split("\t")
    if len(cells) != 5:
        raise ValueError(f"columns: found {len(cells)}, expected 5")
    impression, user, time, history, impressions = (cell.strip() for cell in cells)
    if not impression or not user:
        raise ValueError(f"found no {'user' if impression else 'impression id'}, expected one")
    _parse_impressions(impressions)
    return _LoggedRanking(_epoch_ms(time), impression, user, impressions), history


def _parse_impressions(text: str) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Parse items and labels in order: either all items have a label ("N1-0 N2-1") or none has ("N1 N2").

    Raises ValueError.
    """
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
        repeated = next(item for index, item in enumerate(items) if item in items[:index])
        raise ValueError(f"impressions: {repeated!r} is in the list twice")
    return tuple(items), tuple(labels) if labelled else None


def _epoch_ms(text: str) -> int:
    if match := _TIME.fullmatch(text):
        month, day, year, hour, minute, second = map(int, match.groups()[:6])
        try:
            # 12 AM is midnight and 12 PM noon, so 12 counts as 0.
            if not 1 <= hour <= 12:
                raise ValueError
            time = datetime(year, month, day, hour % 12 + 12 * (match[7] == "P"), minute, second, tzinfo=UTC)
        except ValueError:
            pass
        else:
            return round(time.timestamp() * 1000)
    raise ValueError(f"time: found {text!r}, expected M/D/YYYY h:mm:ss AM or PM")
