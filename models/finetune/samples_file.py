"""Read training samples of text models from a JSONL, CSV or TSV file, plain, gzip or zstd."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import zstandard

from feedrank.models.finetune.samples import QueryTextGroups

_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MAX_CELL_CHARS = 1 << 24
"""In characters."""
FILE_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Name the columns of a samples file."""

    query: str = "query"
    text: str = "text"
    label: str = "label"
    """Relevance, a number of 0 or more; without this column every text is a positive."""
    group: str = "group"
    """Rows with the same value form a group; without this column, rows with the same query do."""
    positive: str = "positive"
    """Used if there is no text column: a positive text, with an optional negative in the same row."""
    negative: str = "negative"


def read_samples(path: Path, columns: ColumnNames | None = None) -> QueryTextGroups:
    """Read the groups of a file, in the order of their first rows; a duplicate text in a group keeps its highest label.

    CSV and TSV need a header; TSV has no quoting.
    Raises ValueError with file, line number, what was found and what was expected.
    """
    columns = columns or ColumnNames()
    suffix = next((part for part in reversed(path.suffixes) if part.lower() not in (".gz", ".zst")), "").lower()
    if suffix not in FILE_SUFFIXES:
        raise ValueError(
            f"{path}: found the file type {suffix or 'none'!r}, expected {', '.join(FILE_SUFFIXES)}, plain, .gz or .zst"
        )
    groups: dict[str, tuple[str, dict[str, float]]] = {}
    for number, row in _rows(path, suffix):
        try:
            query = _parse_text(row, columns.query)
            key = query if row.get(columns.group) in (None, "") else f"group {row[columns.group]}"
            group_query, labelled = groups.setdefault(key, (query, {}))
            if group_query != query:
                raise ValueError(
                    f"found the query {query!r} in the group of {group_query!r}; expected one query per group"
                )
            for text, label in _labels_of_row(row, columns):
                labelled[text] = max(label, labelled.get(text, 0.0))
        except ValueError as problem:
            raise ValueError(f"{path}, line {number}: {problem}") from None
    if not groups:
        raise ValueError(f"{path}: found no row, expected at least one with {columns.query} and {columns.text}")
    return QueryTextGroups.from_groups(groups.values())


def _labels_of_row(row: Mapping[str, Any], columns: ColumnNames) -> Iterator[tuple[str, float]]:
    if columns.text not in row and columns.positive in row:
        yield _parse_text(row, columns.positive), 1.0
        if row.get(columns.negative) not in (None, ""):
            yield _parse_text(row, columns.negative), 0.0
        return
    yield _parse_text(row, columns.text), _parse_label(row, columns.label)


def _parse_text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise ValueError(
            f"found the columns {', '.join(row)}, expected {name}; name the column with the matching option"
        )
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: found {value!r}, expected a text")
    return value.strip()


def _parse_label(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name, 1)
    try:
        label = float(value)
    except (TypeError, ValueError):
        label = math.nan
    if not 0 <= label < math.inf:
        raise ValueError(f"{name}: found {value!r}, expected a number of 0 or more")
    return label


def _rows(path: Path, suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, column -> value) of each row."""
    number = 0
    try:
        with _open_text(path) as lines:
            for number, row in (
                _json_rows(lines) if suffix in (".jsonl", ".ndjson") else _table_rows(lines, suffix == ".tsv")
            ):
                if isinstance(row, str):
                    raise ValueError(f"{path}, line {number}: {row}")
                yield number, row
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, UnicodeDecodeError, csv.Error) as problem:
        raise ValueError(f"{path}, after line {number}: damaged, or not UTF-8 text: {problem}") from None


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == _GZIP_MAGIC:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    if head == _ZSTD_MAGIC:
        return TextIOWrapper(
            zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True),
            encoding="utf-8-sig", newline="",
        )  # fmt: skip
    return path.open(encoding="utf-8-sig", newline="")


def _json_rows(lines: IO[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as problem:
            yield number, f"found {line.strip()[:60]!r}, expected a JSON object: {problem}"
        else:
            yield number, row if isinstance(row, dict) else f"found {row!r:.60}, expected a JSON object"


def _table_rows(lines: IO[str], is_tsv: bool) -> Iterator[tuple[int, dict[str, Any] | str]]:
    previous_limit = csv.field_size_limit(_MAX_CELL_CHARS)
    try:
        options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if is_tsv else {"strict": True}
        reader = csv.reader(lines, **options)
        header: list[str] = []
        for cells in reader:
            if not header:
                header = [name.strip() for name in cells]
            elif cells and len(cells) != len(header):
                yield reader.line_num, f"found {len(cells)} cells, expected {len(header)} as in the header"
            elif cells:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    finally:
        csv.field_size_limit(previous_limit)
