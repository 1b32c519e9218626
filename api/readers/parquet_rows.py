"""Read the rows of Parquet files of other systems, under the names of their columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.tables import normalise_times, row_dicts

_BATCH_ROWS = 8192


def read_rows(stream: BinaryIO, source: str, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, column -> value) for each row that can be read; the others go to `rejects`."""
    # Imported here, because the import takes 0.3 s and the other formats don't need it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 1
    try:
        with pq.ParquetFile(stream) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for row in row_dicts(normalise_times(batch)):
                    if isinstance(row, ValueError):
                        rejects.reject(source, number, f"row: has a value that can't be read: {row}", repr(row))
                    else:
                        yield number, row
                    number += 1
    except (pa.ArrowException, OSError) as problem:
        first_line = str(problem).partition("\n")[0]
        rejects.reject(source, number, f"the rest of this Parquet file can't be read: {first_line}")


def columns_of(file: Path | BinaryIO) -> list[str]:
    """Return the columns of a Parquet file; empty if it can't be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError):
        return []
