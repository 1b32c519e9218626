"""Read the tables of other systems: a layout says which columns a file has and which parts of events they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from feedrank.api.readers import lines, parquet_rows
from feedrank.api.readers.columns import SAMPLE_ROWS, float_columns, float_note
from feedrank.api.readers.delimited import split_table
from feedrank.api.readers.encodings import find_form
from feedrank.api.readers.folders import Folder, open_files
from feedrank.api.readers.import_options import ImportOptions, TimeUnit
from feedrank.api.readers.records import Record, split_csv, split_delimited
from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.rows import RowParser
from feedrank.api.readers.separators import FIRST_LINES, find_start
from feedrank.api.readers.times import TimeReader
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import canonical_id, is_missing

Row: TypeAlias = dict[str, Any]
"""Column or part of an event -> value."""


def _as_it_is(row: Row) -> Iterable[Row]:
    return (row,)


@dataclass(frozen=True, slots=True)
class Layout:
    """One file of a format, and how its rows become events."""

    kind: Literal["item", "user", "interaction"]
    """The events that its rows become."""
    columns: Mapping[str, str]
    """Column -> part of the event or name of a field; empty: left out. Other columns become fields of their names."""
    files: tuple[str, ...]
    """Patterns of the file's name in a folder, such as transactions*.csv."""
    header: tuple[str, ...] = ()
    """Columns of a file that has no header; empty: its first row is the header."""
    separator: str = ","
    encoding: str | None = None
    time_unit: TimeUnit = "ms"
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Parts that are the same in every row, such as the type of all interactions."""
    converter: Callable[[], Callable[[Row], Iterable[Row]]] = lambda: _as_it_is
    """Makes a function that turns a row, under the names of `columns`, into the rows of zero or more events. A key
    `event` says their kind, if it is not `kind`. It may raise ValueError for an invalid row."""

    def fits(self, columns: Iterable[str], ours: bool = False) -> bool:
        """Return whether a header has all columns of this layout that are not left out.

        ours: names of ours, such as user, count for the columns that become them.
        """
        names = set(columns)
        needed = {column: part for column, part in self.columns.items() if part}
        return not self.header and all(column in names or (ours and part in names) for column, part in needed.items())


def read_layouts(path: Path, layouts: Sequence[Layout], rejects: Rejects, options: ImportOptions) -> Iterator[Event]:
    """Read the files of a folder, a zip archive or one file, in the order of the layouts.

    A single file's layout is known by its header, or by its name. Raises ValueError if no file has one of the layouts.
    """
    with open_files(path) as folder:
        found = _files(folder, layouts)
        if len(folder.names) == 1:
            found = _single_file(folder, layouts, options)
        if not found:
            expected = ", or ".join(", ".join(layout.files) for layout in layouts)
            raise ValueError(f"{path}: found {', '.join(folder.names[:5]) or 'nothing'}, expected {expected}")
        for name, layout in found:
            yield from read_file(folder, name, layout, rejects, options)


def has_files(folder: Folder, layouts: Iterable[Layout]) -> bool:
    """Return whether a folder has a file of one of the layouts."""
    return any(folder.match(pattern) for layout in layouts for pattern in layout.files)


def fitting(columns: Iterable[str], layouts: Iterable[Layout]) -> Layout | None:
    """Return the first layout whose columns a header has."""
    names = set(columns)
    return next((layout for layout in layouts if layout.fits(names)), None)


def _files(folder: Folder, layouts: Sequence[Layout]) -> list[tuple[str, Layout]]:
    return [
        (name, layout)
        for layout in layouts
        for name in dict.fromkeys(name for pattern in layout.files for name in folder.match(pattern))
    ]


def _single_file(folder: Folder, layouts: Sequence[Layout], options: ImportOptions) -> list[tuple[str, Layout]]:
    if named := _files(folder, layouts):
        return named[:1]
    name = folder.names[0]
    found: list[str] = []
    for layout in layouts:
        found = columns_of(folder, name, layout.separator, options, _known(layout))
        if layout.fits(found, ours=True):
            return [(name, layout)]
    expected = "; or ".join(", ".join(layout.columns) for layout in layouts)
    raise ValueError(f"{folder.path}: found the columns {', '.join(found[:10]) or '(none)'}, expected {expected}")


def read_file(folder: Folder, name: str, layout: Layout, rejects: Rejects, options: ImportOptions) -> Iterator[Event]:
    """Read one file of a folder by its layout."""
    source = folder.source(name)
    convert = layout.converter()
    parser = RowParser(("event",), source)
    entries = rows(folder, name, layout, rejects, options)
    first, entries = peek(entries, SAMPLE_ROWS)
    times = TimeReader(
        replace(options, time_unit=options.time_unit or layout.time_unit),
        sample=[row.get("timestamp") for _, _, row in first],
    )
    for number, text, row in entries:
        try:
            if not is_missing(row.get("timestamp")):
                row["timestamp"] = times.read(row["timestamp"])
            events = [
                parser.parse(parts if "event" in parts else {"event": layout.kind, **layout.constants, **parts})
                for parts in convert(row)
            ]
        except (EventError, ValueError) as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept(number)
            yield from events
    rejects.note(*parser.notes(), *(times.notes() if layout.time_unit == "auto" else ()))


def columns_of(
    folder: Folder, name: str, separator: str, options: ImportOptions, known: Collection[str] = ()
) -> list[str]:
    """Return the columns of a Parquet file, or the cells of a text file's first row; empty for an empty file.

    known: names of columns in lower case, which help to find a separator other than the comma.
    """
    if _is_parquet(folder, name):
        with folder.open(name) as stream:
            return parquet_rows.columns_of(stream)
    with _numbered(folder, name, Rejects(), options) as numbered:
        first = next(_split(numbered, name, separator, 0, Rejects(), options, known), None)
    names = [] if first is None else [cell.strip() for cell in first.cells]
    if options.names_positions(names):
        names = [str(index) for index in range(len(names))]
    return options.rename(names, folder.source(name)) if names else names


def rows(
    folder: Folder, name: str, layout: Layout, rejects: Rejects, options: ImportOptions
) -> Iterator[tuple[int, str, Row]]:
    """Yield (line number, text, row) of a file, under the names of the layout; ids are without the `.0` of pandas."""
    first, entries = peek(_renamed(folder, name, layout, rejects, options), SAMPLE_ROWS)
    if not first:
        return
    header = list(first[0][2])

    def cells(numbered: Iterable[tuple[int, str, Row]]) -> Iterator[list[str]]:
        return (["" if cell is None else str(cell) for cell in row.values()] for _, _, row in numbered)

    found = float_columns(header, list(cells(first)), lambda: cells(_renamed(folder, name, layout, Rejects(), options)))
    rejects.note(*map(float_note, sorted(found)))
    for number, text, row in entries:
        for column in found:
            row[column] = _without_zero(row[column])
        yield number, text, row


def _without_zero(cell: Any) -> Any:
    """Return the id in a cell of a column of whole floats; of a list in a cell, each of its ids."""
    if isinstance(cell, str):
        return "|".join(part.strip().removesuffix(".0") for part in cell.split("|"))
    return canonical_id(cell)


def _renamed(
    folder: Folder, name: str, layout: Layout, rejects: Rejects, options: ImportOptions
) -> Iterator[tuple[int, str, Row]]:
    for number, text, row in _rows(folder, name, layout, rejects, options):
        renamed = {layout.columns.get(column, column): value for column, value in row.items()}
        renamed.pop("", None)
        yield number, text, renamed


def _rows(
    folder: Folder, name: str, layout: Layout, rejects: Rejects, options: ImportOptions
) -> Iterator[tuple[int, str, Row]]:
    """Yield (line number, text, column -> cell) for each row after the header."""
    source = folder.source(name)
    if _is_parquet(folder, name):
        with folder.open(name) as stream:
            for number, row in parquet_rows.read_rows(stream, source, rejects):
                yield number, repr(row), dict(zip(options.rename(list(row), source), row.values(), strict=True))
        return
    with _numbered(folder, name, rejects, options, layout.encoding) as numbered:
        header, records = _table(numbered, source, layout, rejects, options)
        for number, text, cells in records:
            if cells != header:
                yield number, text, dict(zip(header, cells, strict=True))


def _is_parquet(folder: Folder, name: str) -> bool:
    return folder.plain_name(name).lower().endswith((".parquet", ".pq"))


@contextmanager
def _numbered(
    folder: Folder, name: str, rejects: Rejects, options: ImportOptions, encoding: str | None = None
) -> Iterator[Iterator[tuple[int, str]]]:
    """Open a text file; give its numbered lines."""
    with folder.open(name) as stream:
        form = find_form(stream, options.encoding or encoding, may_be_western=False)
        yield lines.decode_lines(stream, folder.source(name), rejects, form)


def _table(
    numbered: Iterator[tuple[int, str]], source: str, layout: Layout, rejects: Rejects, options: ImportOptions
) -> tuple[list[str], Iterator[Record]]:
    """Return the header of a table and its records."""
    known = _known(layout)
    if layout.separator == "," and not layout.header:
        table = split_table(numbered, source, rejects, options, known)
        return ([], iter(())) if table is None else (table.header, table.records)
    records = _split(numbered, source, layout.separator, len(layout.header), rejects, options, known)
    if layout.header:
        return list(layout.header), records
    first = next(records, None)
    if first is None:
        return [], records
    return options.rename([cell.strip() for cell in first.cells], source), records


def _known(layout: Layout) -> list[str]:
    return [column for column in layout.columns if column == column.lower()]


def _split(
    numbered: Iterator[tuple[int, str]], source: str, separator: str, width: int, rejects: Rejects,
    options: ImportOptions, known: Collection[str],
) -> Iterator[Record]:  # fmt: skip
    """Yield all records of a table. The separator of comma-separated files is found, as they may have another one."""
    if separator != ",":
        return split_delimited(numbered, source, rejects, delimiter=options.separator or separator, width=width)
    first, numbered = peek(numbered, FIRST_LINES)
    start = find_start([text for _, text in first], {*known, *(name.lower() for name in options.map)})
    return split_csv(islice(numbered, start.skipped, None), source, rejects, options.separator or start.separator)
