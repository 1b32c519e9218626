"""Files of batch recommendations: the users that are read, and the feeds that are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from feedrank.api.python.arrow_columns import as_ids
from feedrank.api.python.columns import map_columns
from feedrank.api.readers import lines, records
from feedrank.api.readers.rejects import Rejects
from feedrank.models.atomic_files import atomic_write

USER_FILES = (".txt", ".csv", ".parquet")
FEED_FILES = (".parquet", ".csv", ".jsonl")


class FeedWriter(Protocol):
    """Writes tables of feeds one after the other to one file."""

    def write(self, table: Any) -> None:
        """Write a pyarrow Table."""
        ...


def read_users(path: Path) -> list[str]:
    """Read distinct user ids in the order of a file; missing ids are left out.

    A .txt file has one id per line; a .csv or .parquet file has a column such as `user` or `user_id`. Text files may be
    compressed (.gz, .zst). Raises ValueError for another file or one without that column, and FileNotFoundError.
    """
    suffix = _suffix(path, USER_FILES)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; give the path of a file of users")
    if suffix == ".parquet":
        return _read_parquet(path)
    numbered = lines.read_lines(path, strict := Rejects(strict=True))
    if suffix == ".txt":
        ids = (text.strip() for _, text in numbered)
    else:
        rows = records.split_csv(numbered, str(path), strict)
        header = next(rows, None)
        column = _user_column([] if header is None else [name.strip() for name in header.cells], path)
        ids = (record.cells[column].strip() for record in rows)
    return [user for user in dict.fromkeys(ids) if user]


@contextmanager
def feed_writer(path: Path, schema: Any) -> Iterator[FeedWriter]:
    """Open a .parquet, .csv or .jsonl file for feeds; it appears under its name when all is written.

    schema: the pyarrow Schema of the tables. Raises ValueError for another ending.
    """
    suffix = _suffix(path, FEED_FILES)
    with atomic_write(path) as temporary:
        if suffix == ".jsonl":
            with temporary.open("w", encoding="utf-8") as file:
                yield _JsonLines(file)
        elif suffix == ".csv":
            import pyarrow.csv as pa_csv

            with pa_csv.CSVWriter(temporary, schema) as writer:
                yield writer
        else:
            import pyarrow.parquet as pq

            with pq.ParquetWriter(temporary, schema) as writer:
                yield writer


def check_feed_file(path: Path) -> None:
    """Check the name of a file of feeds before long work. Raises ValueError."""
    _suffix(path, FEED_FILES)


class _JsonLines:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, table: Any) -> None:
        for row in table.to_pylist():
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _suffix(path: Path, expected: tuple[str, ...]) -> str:
    name = path.name.lower()
    if expected == USER_FILES:
        name = name.removesuffix(".gz").removesuffix(".zst")
    suffix = Path(name).suffix
    if suffix not in expected:
        raise ValueError(f"{path}: found the ending {suffix!r}, expected one of {', '.join(expected)}")
    return suffix


def _user_column(names: list[str], path: Path) -> int:
    column = map_columns("users", names).parts.get("user")
    if column is None:
        raise ValueError(
            f"{path}: found the columns {', '.join(names) or '(none)'}, expected one named like `user` or `user_id`;"
            " a file of ids without a header ends with .txt"
        )
    return names.index(column)


def _read_parquet(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        name = names[_user_column(list(names), path)]
        column = pq.read_table(path, columns=[name]).column(name)
    except pa.ArrowException as problem:
        raise ValueError(f"{path}: not a Parquet file that can be read: {str(problem).partition(chr(10))[0]}") from None
    return [user for user in dict.fromkeys(as_ids(column, name).column.to_pylist()) if user is not None]
