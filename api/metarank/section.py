"""One mapping of a Metarank config, whose keys are read one by one; what was not read is named at the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]|(?:second|minute|hour|day|week)s?)")
_HOURS = {"s": 1 / 3_600, "m": 1 / 60, "h": 1.0, "d": 24.0, "w": 168.0}


class NoCounterpart(ValueError):
    """Raised for a part of a config that feedrank can't have; the message says what to use instead."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an import found, over the whole file."""

    problems: list[str] = field(default_factory=list)
    """What has no counterpart: where it is, what was found, and what to use instead."""
    differences: dict[str, list[str]] = field(default_factory=dict)
    """What was turned into something that differs: sentence -> the places that it holds for."""

    def problem(self, where: str, text: str) -> None:
        """Add a part that has no counterpart."""
        self.problems.append(f"{where}: {text}")

    def note(self, where: str, text: str) -> None:
        """Add a difference."""
        self.differences.setdefault(text, []).append(where)

    @property
    def notes(self) -> list[str]:
        """The differences, each with all its places."""
        return [f"{', '.join(places)}: {text}" for text, places in self.differences.items()]


class Section:
    """A mapping with its place in the file. Keys are the same whether they are written fooBar, foo_bar or foo-bar."""

    def __init__(self, where: str, table: object) -> None:
        """Take a mapping. Raises NoCounterpart for anything else."""
        if not isinstance(table, Mapping):
            raise NoCounterpart(f"found {_shown(table)}, expected a mapping of keys")
        self.where = where
        self._names = {normalised(str(key)): str(key) for key in table}
        self._values = {normalised(str(key)): value for key, value in table.items()}
        if len(self._values) < len(table):
            raise NoCounterpart("found one key in two spellings; keep one")
        self._read: set[str] = set()

    def get(self, *names: str) -> Any:
        """Return the value of the first of these keys that is there, and not null; None without one."""
        found = None
        for name in map(normalised, names):
            self._read.add(name)
            if found is None:
                found = self._values.get(name)
        return found

    def text(self, *names: str, default: str | None = None) -> str:
        """Return a text. Raises NoCounterpart if it is missing and has no default."""
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            raise NoCounterpart(f"found {names[0]} = {_shown(value)}, expected a text")
        return str(value)

    def number(self, *names: str, default: float | None = None) -> float:
        """Return a number. Raises NoCounterpart if it is missing and has no default."""
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NoCounterpart(f"found {names[0]} = {_shown(value)}, expected a number")
        return value

    def texts(self, *names: str) -> list[str]:
        """Return a list of texts; a single one is a list of one. Raises NoCounterpart if it is missing."""
        value = self.get(*names)
        entries = value if isinstance(value, list) else [value]
        if not entries or not all(isinstance(entry, str | int | float) for entry in entries):
            raise NoCounterpart(f"found {names[0]} = {_shown(value)}, expected a list of texts")
        return [str(entry).lower() if isinstance(entry, bool) else str(entry) for entry in entries]

    def numbers(self, *names: str) -> list[float]:
        """Return a list of numbers. Raises NoCounterpart if it is missing."""
        value = self.get(*names)
        entries = value if isinstance(value, list) else [value]
        if not entries or not all(isinstance(entry, int | float) and not isinstance(entry, bool) for entry in entries):
            raise NoCounterpart(f"found {names[0]} = {_shown(value)}, expected a list of numbers")
        return entries

    def hours(self, *names: str, default: float | None = None) -> float:
        """Return a duration, such as 7d or 24h, in hours. Raises NoCounterpart if it is missing without a default."""
        value = self.get(*names)
        if value is None and default is not None:
            return default
        match = _DURATION.fullmatch(str(value).strip().lower())
        if match is None or float(match[1]) == 0:
            raise NoCounterpart(f"found {names[0]} = {_shown(value)}, expected a duration such as 30s, 24h or 7d")
        return float(match[1]) * _HOURS[match[2][0]]

    def below(self, name: str) -> Section:
        """Return the mapping under a key. Raises NoCounterpart for anything else."""
        return Section(f"{self.where}.{name}", self.get(name))

    def name_unread(self, report: Report) -> None:
        """Report each key that was not read."""
        for key, name in self._names.items():
            if key not in self._read and self._values[key] is not None:
                shown = _shown(self._values[key])
                report.problem(self.where, f"found the key {name} = {shown}; feedrank knows no such key")


def normalised(name: str) -> str:
    """Return a key or a kind in one spelling."""
    return re.sub(r"[_\-\s/]", "", name).lower()


def _shown(value: object) -> str:
    text = repr(value)
    return "nothing" if value is None else text if len(text) <= 60 else f"{text[:57]}..."
