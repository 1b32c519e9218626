"""Split delimited text into records and cells; a quoted cell may span several lines."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from feedrank.api.readers.rejects import Rejects


class Record(NamedTuple):
    """One record of a table."""

    number: int
    """Number of its first line, from 1."""
    text: str
    """Its text as in the file."""
    cells: list[str]


def split_delimited(
    numbered: Iterable[tuple[int, str]], source: str, rejects: Rejects, *, delimiter: str, width: int = 0
) -> Iterator[Record]:
    """Split lines without quoted cells into records; lines with another number of cells than `width` are rejected.

    With a width of 0, the first record sets it.
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


def split_csv(
    numbered: Iterable[tuple[int, str]], source: str, rejects: Rejects, delimiter: str = ","
) -> Iterator[Record]:
    """Split CSV lines into records, the header first; it sets the number of cells.

    Blanks after a delimiter are not part of a cell. Empty cells beyond the header's are dropped, and records of nothing
    but empty cells are passed over, as spreadsheets write both. A delimiter of several characters splits lines without
    quoted cells.

    An unclosed quote would swallow all later lines. So only the line that opens it is rejected, and reading continues
    with the next line.
    """
    if len(delimiter) > 1:
        yield from split_delimited(numbered, source, rejects, delimiter=delimiter)
        return
    feed = _CsvLines(iter(numbered))
    reader = csv.reader(feed, strict=True, delimiter=delimiter, skipinitialspace=delimiter != " ")
    width = 0
    while True:
        feed.consumed.clear()
        error = ""
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            error = f"not CSV: {problem}"
        else:
            if not any(cells):
                continue
            width = width or len(cells)
            if len(cells) > width and not any(cells[width:]):
                del cells[width:]
            if len(cells) != width:
                error = f"columns: found {len(cells)}, expected {width} as in the header"
        first, text = feed.consumed[0]
        if error:
            if len(feed.consumed) > 1:
                error += "; a quote opened on this line is not closed on it"
            rejects.reject(source, first, error, text)
            feed.pending.extendleft(reversed(feed.consumed[1:]))
            continue
        if len(feed.consumed) > 1:
            text = "\n".join(line for _, line in feed.consumed)
            if feed.consumed[-1][0] - first >= len(feed.consumed):
                rejects.reject(source, first, "a line inside this record could not be read", text)
                continue
        yield Record(first, text, cells)


class _CsvLines:
    """Feeds lines to the csv module and remembers those that the current record consumed."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self.pending: deque[tuple[int, str]] = deque()
        self.consumed: list[tuple[int, str]] = []

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = self.pending.popleft() if self.pending else next(self._numbered)
        self.consumed.append(line)
        return line[1] + "\n"
