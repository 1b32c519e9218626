"""Custom readers, as an application would write them: lines of `time user item type`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedrank.api.readers import Rejects
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event, InteractionEvent, ItemEvent


def read(path: Path, rejects: Rejects) -> Iterator[Event]:
    """Yield an interaction for each line of four words."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            at, user, item, kind = line.split()
            yield parse({"event": "interaction", "id": f"{path.name}:{number}", "timestamp": at, "user": user,
                         "item": item, "type": kind})  # fmt: skip
        except ValueError as problem:
            rejects.reject(str(path), number, str(problem), line)
        else:
            rejects.accept()


def read_folder(path: Path, rejects: Rejects) -> Iterator[Event]:
    """Yield the events of all files of a folder."""
    for file in sorted(path.iterdir()):
        yield from read(file, rejects)


def read_unchecked(path: Path, rejects: Rejects) -> Iterator[Event]:
    """Yield two valid events and three that are not."""
    yield ItemEvent("a", 1, "x", {"title": "X"})
    yield ItemEvent("b", 1, "", {})
    yield InteractionEvent("c", 10**18, "x", "click")
    yield ItemEvent("d", 1, "x", {"price": float("nan")})
    yield ItemEvent("e", 1, "y")


def read_dicts(path: Path, rejects: Rejects) -> Iterator[Any]:
    """Yield dicts instead of events."""
    yield {"event": "item", "id": "a", "timestamp": 1, "item": "x"}


def read_nothing(path: Path, rejects: Rejects) -> None:
    """Return nothing, as a function without a yield does."""


def read_random_ids(path: Path, rejects: Rejects) -> Iterator[Event]:
    """Give the same record another id each time."""
    yield ItemEvent(f"{random.random()}", 1, "x")


def read_one_id(path: Path, rejects: Rejects) -> Iterator[Event]:
    """Give two records the same id."""
    yield ItemEvent("a", 1, "x")
    yield ItemEvent("a", 1, "y")


def read_without_rejects(path: Path) -> Iterator[Event]:
    """Take no collector of rejected lines."""
    yield ItemEvent("a", 1, "x")
