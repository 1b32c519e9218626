"""Opens a table of delimited text: finds its encoding, separator and header, and yields its records as clean cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from feedrank.api.readers import lines, records
from feedrank.api.readers.import_options import ImportOptions
from feedrank.api.readers.records import Record
from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.separators import FIRST_LINES, SEPARATOR_NAMES, find_start


@dataclass(slots=True)
class DelimitedTable:
    """A table whose records are read one by one."""

    header: list[str]
    """Names of the columns, ours where the options or the spelling say so; empty for a column without a name."""
    separator: str
    records: Iterator[Record]
    """The records after the header; cells without blanks around them, as many as in `header`."""


def open_table(path: Path, rejects: Rejects, options: ImportOptions, known: Collection[str]) -> DelimitedTable | None:
    """Open a file with a header, plain or compressed; None if it holds no line at all.

    Where the options name columns by their positions, there is no header. known: names of columns, in lower case, that
    differ from the file's only in capital letters. Records that can't be read go to `rejects`, decisions to its notes.
    Raises ValueError as `split_table` does.
    """
    numbered = lines.read_lines(path, rejects, options.encoding, may_be_western=True)
    return split_table(numbered, str(path), rejects, options, known)


def split_table(
    numbered: Iterator[tuple[int, str]], source: str, rejects: Rejects, options: ImportOptions, known: Collection[str],
    expected: Collection[str] = (),
) -> DelimitedTable | None:  # fmt: skip
    """Split the numbered lines of a table with a header, as `open_table` does; None if there is none.

    expected: further names in lower case by which the header is known; they keep the file's spelling. The header line
    may be repeated, as in files that were joined. Raises ValueError for a header with a name twice, or without a
    column that the options name.
    """
    first, all_lines = peek(numbered, FIRST_LINES)
    names = {*known, *expected, *(name.lower() for name in options.map)}
    start = find_start([text for _, text in first], names)
    separator = options.separator or start.separator
    rejects.note(*start.notes)
    if separator != ",":
        rejects.note(f"cells are separated by {SEPARATOR_NAMES.get(separator, repr(separator))}")
    table = records.split_csv(islice(all_lines, start.skipped, None), source, rejects, separator)
    top = next(table, None)
    if top is None:
        return None
    raw = [cell.strip().strip('"').strip() for cell in top.cells]
    if options.names_positions(raw):
        raw = [str(index) for index in range(len(raw))]
        table = chain((top,), table)
    elif raw[0].startswith("#"):
        raw[0] = raw[0].lstrip("# ")
    header = _spelled(options.rename(raw, source), known, rejects)
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise ValueError(f"{source}: found the column {', '.join(repeated)} more than once; rename all but one")
    return DelimitedTable(header, separator, _clean(table, raw, source, rejects))


def _spelled(header: list[str], known: Collection[str], rejects: Rejects) -> list[str]:
    """Return the header with known names in our spelling, unless both spellings are there."""
    spelled = list(header)
    for index, name in enumerate(header):
        plain = name.lower()
        if name not in known and plain in known and [other.lower() for other in header].count(plain) == 1:
            rejects.note(f"the column {name!r} was read as {plain!r}")
            spelled[index] = plain
    return spelled


def _clean(table: Iterator[Record], raw: list[str], source: str, rejects: Rejects) -> Iterator[Record]:
    first = raw[0]
    repeated = 0
    for number, text, cells in table:
        clean = [cell.strip() for cell in cells]
        if clean[0] == first and clean == raw:
            repeated += 1
        elif first and first in clean and sorted(clean) == sorted(raw):
            raise ValueError(
                f"{source}:{number}: found a second header with its columns in another order; split the file there"
            )
        else:
            yield Record(number, text, clean)
    if repeated:
        rejects.note(f"the header is repeated {repeated:,} times, which were passed over")
