"""Read events from the rows of a CSV or Parquet table, whose columns are named like the parts of an event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedrank.api.readers.columns import (
    ID_COLUMNS,
    SAMPLE_ROWS,
    TIME_COLUMNS,
    ColumnReader,
    float_columns,
)
from feedrank.api.readers.delimited import open_table
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects, peek
from feedrank.api.readers.rows import EVENT_COLUMNS, RowParser, check_event_kinds
from feedrank.api.readers.times import TimeReader
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import is_missing, is_whole_float

KNOWN_COLUMNS = frozenset(
    ("event", "id", "timestamp", "labels", "title", "text", "category", "tags", "published")
).union(*EVENT_COLUMNS.values())  # fmt: skip
"""Names of columns that are more than a field; capital letters make no difference."""
_BATCH_ROWS = 8192


def read_csv(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the events of a table of delimited text with a header, plain or compressed, in file order.

    Separator and encoding are found if the options leave them open; see `open_table`. How ids, numbers and times are
    read is decided from the first 1,000 records. Other columns become text fields. Columns without a name (an index, or
    trailing commas) are ignored. Raises ValueError if the header fits no event type.
    """
    source = str(path)
    table = open_table(path, rejects, options, KNOWN_COLUMNS)
    if table is None:
        return
    rows = RowParser([name for name in table.header if name], source)
    first, all_records = peek(table.records, SAMPLE_ROWS)
    sample = [record.cells for record in first]
    if "event" in table.header:
        check_event_kinds((cells[table.header.index("event")] for cells in sample), source)

    def again() -> Iterator[list[str]]:
        reopened = open_table(path, Rejects(), options, KNOWN_COLUMNS)
        return iter(()) if reopened is None else (record.cells for record in reopened.records)

    columns = ColumnReader(table.header, sample, float_columns(table.header, sample, again), options, rejects)
    for number, text, cells in all_records:
        try:
            event = rows.parse(columns.read(cells))
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept(number)
            yield event
    columns.finish()
    rejects.note(*rows.notes())


def read_parquet(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the events of a Parquet file in file order, one batch of a row group at a time.

    The line of a reject is its row number, from 1. A row group that can't be read is one reject. Raises ValueError if
    the columns fit no event type.
    """
    # Imported here, because the import takes 0.3 s and the other formats don't need it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = str(path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as problem:
        rejects.reject(source, 1, f"not a Parquet file that can be read: {_first_line(problem)}")
        return
    with file:
        names = options.rename(list(file.schema_arrow.names), source)
        rows = RowParser(_check_distinct(names, source), source)
        read = _ParquetCells(file, names, options)
        start = 1
        for group in range(file.num_row_groups):
            number = start
            try:
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                    for row in row_dicts(normalise_times(batch).rename_columns(names)):
                        try:
                            if isinstance(row, ValueError):
                                raise EventError("row", f"has a value that can't be read: {row}")
                            event = rows.parse(read.clean(row))
                        except EventError as problem:
                            rejects.reject(source, number, str(problem), repr(row))
                        else:
                            rejects.accept(number)
                            yield event
                        number += 1
            except (pa.ArrowException, OSError) as problem:
                rejects.reject(source, number, f"the rest of this row group is damaged: {_first_line(problem)}")
            start += file.metadata.row_group(group).num_rows
    rejects.note(*read.notes(), *rows.notes())


class _ParquetCells:
    """Reads the times and the text ids of a Parquet file by decisions that hold for the whole file."""

    def __init__(self, file: Any, names: list[str], options: ImportOptions) -> None:
        import pyarrow as pa

        kinds = {name: file.schema_arrow.field(index).type for index, name in enumerate(names)}
        first: dict[str, list[Any]] = {name: [] for name in names}
        try:
            batch = next(file.iter_batches(1000), None)
            if batch is not None:
                first = normalise_times(batch).rename_columns(names).to_pydict()
        except (pa.ArrowException, OSError, ValueError):
            pass  # reported when the rows are read
        stored = {name for name in TIME_COLUMNS if name in kinds and pa.types.is_temporal(kinds[name])}
        self._times = {
            name: TimeReader(DEFAULTS if name in stored else options, name, first[name])
            for name in TIME_COLUMNS if name in kinds
        }  # fmt: skip
        self._zoneless = {name for name in stored if not getattr(kinds[name], "tz", None)}
        if self._zoneless and options.zone:
            self._times |= {name: TimeReader(options, name) for name in self._zoneless}
        self._floats = [
            name for index, name in enumerate(names)
            if name in ID_COLUMNS and _is_whole_float_text(file, index, first[name])
        ]  # fmt: skip

    def clean(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with its times as epoch milliseconds. Raises EventError."""
        for name, reader in self._times.items():
            value = row[name]
            if not is_missing(value):
                row[name] = reader.read(value)
        for name in self._floats:
            if row[name] is not None:
                row[name] = row[name].strip().removesuffix(".0")
        return row

    def notes(self) -> list[str]:
        """Return what was decided, in sentences."""
        floats = [f"{name!r} holds whole numbers with '.0' as text; they were read without it" for name in self._floats]
        return [*(note for reader in self._times.values() for note in reader.notes()), *floats]


def _is_whole_float_text(file: Any, index: int, first: list[Any]) -> bool:
    """Return whether a column is text that holds whole floats (123.0) or missing values in the whole file."""

    def fits(values: list[Any]) -> bool:
        return all(is_missing(value) or is_whole_float(value.strip()) for value in values)

    texts = [value for value in first if isinstance(value, str) and not is_missing(value)]
    if not texts or not all(value is None or isinstance(value, str) for value in first) or not fits(first):
        return False
    name = file.schema_arrow.names[index]
    return all(fits(batch.column(0).to_pylist()) for batch in file.iter_batches(_BATCH_ROWS, columns=[name]))


def row_dicts(batch: Any) -> Iterator[dict[str, Any] | ValueError]:
    """Yield each row as column -> value, or the error if it can't be read (such as text that is not UTF-8)."""
    try:
        yield from batch.to_pylist()
    except ValueError:  # raised before the first row: convert again, row by row
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except ValueError as problem:
                yield problem


def normalise_times(batch: Any) -> Any:
    """Convert timestamps to epoch milliseconds, or to ISO-8601 text if they lack a zone or a time of day."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = []
    for column in batch.columns:
        if pa.types.is_timestamp(column.type) and column.type.tz:
            # By way of milliseconds, because Python has no type for nanoseconds.
            column = pc.cast(pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False), pa.int64())
        elif pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type):
            column = pc.cast(column, pa.string())
        elif pa.types.is_decimal(column.type):
            column = pc.cast(column, pa.float64(), safe=False)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _check_distinct(names: list[str], source: str) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{source}: found the column {', '.join(repeated)} more than once; rename all but one")
    return names


def _first_line(problem: Exception) -> str:
    return str(problem).partition("\n")[0]
