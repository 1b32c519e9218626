"""The records of delimited text: lines joined where a quoted cell spans several, and split into cells."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from api.readers.rejects import Rejects


class Record(NamedTuple):
    """One record of a table."""

    number: int
    """The line it starts at, from 1."""
    text: str
    """As it stands in the file."""
    cells: list[str]


def split(
    numbered: Iterable[tuple[int, str]], source: str, rejects: Rejects, *, delimiter: str, width: int = 0
) -> Iterator[Record]:
    """Records of lines whose cells are never quoted; another count of cells than `width` is rejected.

    With a width of 0 the first record says it.
    """
    for number, text in numbered:
        if not text.strip():
            continue
        cells = text.split(delimiter)
        width = width or len(cells)
        if len(cells) == width:
            yield Record(number, text, cells)
        else:
            rejects.reject(source, number, f"columns: found {len(cells)}, expected {width}", text)


def split_csv(numbered: Iterable[tuple[int, str]], source: str, rejects: Rejects) -> Iterator[Record]:
    """Records of CSV, the header first: it says how many cells each has.

    A quote that is never closed swallows the lines after it; then only the line that opened it is rejected, and the
    reading goes on with the next one.
    """
    feed = _Feed(iter(numbered))
    reader = csv.reader(feed, strict=True)
    width = 0
    while True:
        feed.taken.clear()
        fault = ""
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            fault = f"not CSV: {problem}"
        else:
            if not cells:
                continue
            width = width or len(cells)
            if len(cells) != width:
                fault = f"columns: found {len(cells)}, expected {width} as in the header"
        first, text = feed.taken[0]
        if fault:
            if len(feed.taken) > 1:
                fault += "; a quote opened on this line is not closed on it"
            rejects.reject(source, first, fault, text)
            feed.waiting.extendleft(reversed(feed.taken[1:]))
            continue
        if len(feed.taken) > 1:
            text = "\n".join(line for _, line in feed.taken)
            if feed.taken[-1][0] - first >= len(feed.taken):
                rejects.reject(source, first, "a line inside this record could not be read", text)
                continue
        yield Record(first, text, cells)


class _Feed:
    """Lines for the csv module, with a memory of those that the record in hand took."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self.waiting: deque[tuple[int, str]] = deque()
        self.taken: list[tuple[int, str]] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self._numbered)
        self.taken.append(line)
        return line[1] + "\n"
