"""String ids at the edge, int rows inside: translated here, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from engine.types import NOBODY, Rows


class Ids:
    """A growing two-way table of string ids and the rows they were given, in order of arrival."""

    __slots__ = ("_names", "_rows")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: list[str] = []
        self._rows: dict[str, int] = {}
        for name in names:
            self.add(name)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def add(self, name: str) -> int:
        """The row of `name`, given now if it had none."""
        row = self._rows.setdefault(name, len(self._names))
        if row == len(self._names):
            self._names.append(name)
        return row

    def row(self, name: str | None) -> int:
        """The row of `name`, NOBODY if it has none."""
        return NOBODY if name is None else self._rows.get(name, NOBODY)

    def rows(self, names: Sequence[str]) -> Rows:
        """(len(names),) rows, NOBODY for unknown names."""
        return np.fromiter((self._rows.get(name, NOBODY) for name in names), np.int32, len(names))

    def name(self, row: int) -> str:
        """The id at `row`."""
        return self._names[row]

    def names(self, rows: Rows) -> list[str]:
        """The ids at `rows`."""
        return [self._names[row] for row in rows.tolist()]
