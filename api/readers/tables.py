"""Read events from the rows of a CSV or Parquet table, whose columns are named like the parts of an event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from feedrank.api.readers import lines, records
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.rows import RowParser
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.events import Event

CSV_LIST_COLUMNS = ("category", "tags", "items", "labels", "positions", "scores", "propensities", "team")
"""Columns whose CSV cells are lists, separated by '|'."""
_CSV_NUMBER_COLUMNS = ("positions", "scores", "propensities")
_BATCH_ROWS = 8192


def read_csv(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the events of a CSV file with a header (plain, gzip or zstd) in file order.

    Other columns become text fields. Columns without a name (an index, or trailing commas) are ignored. Raises
    ValueError if the header fits no event type.
    """
    source = str(path)
    rows: RowParser | None = None
    header: list[str] = []
    for number, text, cells in records.split_csv(lines.read_lines(path, rejects), source, rejects):
        if rows is None:
            header = options.rename([name.strip() for name in cells], source)
            rows = RowParser(_check_distinct([name for name in header if name], source), source)
            continue
        try:
            columns = zip(header, cells, strict=True)
            event = rows.parse({name: _parse_cell(name, cell) for name, cell in columns if name})
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept()
            yield event


def read_parquet(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the events of a Parquet file in file order, one batch of a row group at a time.

    The line of a reject is its row number, from 1. A row group that can't be read is one reject. Raises ValueError if
    the columns fit no event type.
    """
    source = str(path)
    columns = parquet_columns(path)
    rows = RowParser(_check_distinct(options.rename(columns, source), source), source) if columns else None
    with path.open("rb") as stream:
        for number, row in read_parquet_rows(stream, source, rejects, options):
            assert rows is not None
            try:
                event = rows.parse(row)
            except EventError as problem:
                rejects.reject(source, number, str(problem), repr(row))
            else:
                rejects.accept()
                yield event


def read_parquet_rows(
    stream: BinaryIO, source: str, rejects: Rejects, options: ImportOptions = DEFAULTS
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, column -> value) for each row of a Parquet file that can be read.

    Columns are renamed as the options say. Raises ValueError for columns that are there twice or are missing.
    """
    # Imported here, because the import takes 0.3 s and the other formats don't need it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as problem:
        rejects.reject(source, 1, f"not a Parquet file that can be read: {_first_line(problem)}")
        return
    with file:
        names = _check_distinct(options.rename(list(file.schema_arrow.names), source), source)
        start = 1
        for group in range(file.num_row_groups):
            number = start
            try:
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                    for row in _row_dicts(_normalise_times(batch).rename_columns(names)):
                        if isinstance(row, ValueError):
                            rejects.reject(source, number, f"row: has a value that can't be read: {row}", repr(row))
                        else:
                            yield number, row
                        number += 1
            except (pa.ArrowException, OSError) as problem:
                rejects.reject(source, number, f"the rest of this row group is damaged: {_first_line(problem)}")
            start += file.metadata.row_group(group).num_rows


def parquet_columns(file: Path | BinaryIO) -> list[str]:
    """Return the columns of a Parquet file; empty if it can't be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError):
        return []


def _row_dicts(batch: Any) -> Iterator[dict[str, Any] | ValueError]:
    """Yield each row as column -> value, or the error if it can't be read (such as text that is not UTF-8)."""
    try:
        yield from batch.to_pylist()
    except ValueError:  # raised before the first row: convert again, row by row
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except ValueError as problem:
                yield problem


def _normalise_times(batch: Any) -> Any:
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


def _parse_cell(name: str, cell: str) -> Any:
    if name not in CSV_LIST_COLUMNS or cell == "":
        return cell
    parts = [part.strip() for part in cell.split("|")]
    if name in ("category", "tags"):
        return [part for part in parts if part]
    if name not in _CSV_NUMBER_COLUMNS:
        return parts  # Empty parts stay: a missing label keeps its position, and an item without an id is rejected.
    try:
        return [float(part) for part in parts]
    except ValueError:
        raise EventError(name, f"found {cell!r}, expected numbers separated by '|'") from None


def _check_distinct(names: list[str], source: str) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{source}: found the column {', '.join(repeated)} more than once; rename all but one")
    return names


def _first_line(problem: Exception) -> str:
    return str(problem).partition("\n")[0]
