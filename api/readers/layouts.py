"""Read the tables of other systems: a layout says which columns a file has and which parts of events they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from feedrank.api.readers import lines, parquet_rows, records
from feedrank.api.readers.columns import SAMPLE_ROWS
from feedrank.api.readers.encodings import find_form
from feedrank.api.readers.folders import Folder, open_files
from feedrank.api.readers.import_options import ImportOptions, TimeUnit
from feedrank.api.readers.records import Record
from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.rows import RowParser
from feedrank.api.readers.times import TimeReader
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import is_missing

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

    A single file's layout is told by its header, or by its name. Raises ValueError if no file has one of the layouts.
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
        found = columns_of(folder, name, layout.separator, options)
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


def columns_of(folder: Folder, name: str, separator: str, options: ImportOptions) -> list[str]:
    """Return the columns of a Parquet file, or the cells of a text file's first row; empty for an empty file."""
    if folder.plain_name(name).lower().endswith((".parquet", ".pq")):
        with folder.open(name) as stream:
            return parquet_rows.columns_of(stream)
    layout = Layout("item", {}, (), separator=separator)
    names: list[str] = next(
        ([cell.strip() for cell in cells] for _, _, cells in _cells(folder, name, layout, Rejects(), options)), []
    )
    return options.rename(names, folder.source(name)) if names else names


def rows(
    folder: Folder, name: str, layout: Layout, rejects: Rejects, options: ImportOptions
) -> Iterator[tuple[int, str, Row]]:
    """Yield (line number, text, row) of a file, under the names of the layout."""
    for number, text, row in _rows(folder, name, layout, rejects, options):
        renamed = {layout.columns.get(column, column): value for column, value in row.items()}
        renamed.pop("", None)
        yield number, text, renamed


def _rows(
    folder: Folder, name: str, layout: Layout, rejects: Rejects, options: ImportOptions
) -> Iterator[tuple[int, str, Row]]:
    """Yield (line number, text, column -> cell) for each row after the header."""
    if folder.plain_name(name).lower().endswith((".parquet", ".pq")):
        source = folder.source(name)
        with folder.open(name) as stream:
            for number, row in parquet_rows.read_rows(stream, source, rejects):
                yield number, repr(row), dict(zip(options.rename(list(row), source), row.values(), strict=True))
        return
    header: list[str] = list(layout.header)
    for number, text, cells in _cells(folder, name, layout, rejects, options):
        if not header:
            header = options.rename([cell.strip() for cell in cells], folder.source(name))
        elif cells != header:
            yield number, text, dict(zip(header, cells, strict=True))


def _cells(folder: Folder, name: str, layout: Layout, rejects: Rejects, options: ImportOptions) -> Iterator[Record]:
    source = folder.source(name)
    separator = options.separator or layout.separator
    with folder.open(name) as stream:
        form = find_form(stream, options.encoding or layout.encoding, may_be_western=False)
        numbered = lines.decode_lines(stream, source, rejects, form)
        if separator == ",":
            yield from records.split_csv(numbered, source, rejects)
        else:
            yield from records.split_delimited(numbered, source, rejects, delimiter=separator, width=len(layout.header))
