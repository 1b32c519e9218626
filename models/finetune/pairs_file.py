"""A file of pairs: JSONL, CSV or TSV, plain, gzip or zstd, as groups of texts that answer a query or do not."""

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

from models.finetune.pairs import PairGroups

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_LONGEST_CELL = 1 << 24
"""Characters."""
KINDS = (".jsonl", ".ndjson", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file are read."""

    query: str = "query"
    text: str = "text"
    label: str = "label"
    """A number, 0 or more; a file without this column says what answers and nothing else."""
    group: str = "group"
    """Rows with the same belong together; without this column, rows with the same query do."""
    positive: str = "positive"
    """Where there is no text: a text that answers, and beside it, if there is one, a text that does not."""
    negative: str = "negative"


def read(path: Path, columns: Columns | None = None) -> PairGroups:
    """The groups of a file, in order of their first rows; a text that is there twice in a group keeps its best label.

    CSV and TSV have a header; in TSV a quote is a character like any other.
    Raises ValueError with file, line number, what was found and what was expected.
    """
    columns = columns or Columns()
    suffix = next((one for one in reversed(path.suffixes) if one.lower() not in (".gz", ".zst")), "").lower()
    if suffix not in KINDS:
        raise ValueError(
            f"{path}: found the kind {suffix or 'none'!r}, expected {', '.join(KINDS)}, plain, .gz or .zst"
        )
    groups: dict[str, tuple[str, dict[str, float]]] = {}
    for number, row in _rows(path, suffix):
        try:
            query = _text(row, columns.query)
            key = query if row.get(columns.group) in (None, "") else f"group {row[columns.group]}"
            known, labelled = groups.setdefault(key, (query, {}))
            if known != query:
                raise ValueError(f"found the query {query!r} in the group of {known!r}; expected one query a group")
            for text, label in _labelled(row, columns):
                labelled[text] = max(label, labelled.get(text, 0.0))
        except ValueError as problem:
            raise ValueError(f"{path}, line {number}: {problem}") from None
    if not groups:
        raise ValueError(f"{path}: found no row, expected at least one with {columns.query} and {columns.text}")
    return PairGroups.of(groups.values())


def _labelled(row: Mapping[str, Any], columns: Columns) -> Iterator[tuple[str, float]]:
    if columns.text not in row and columns.positive in row:
        yield _text(row, columns.positive), 1.0
        if row.get(columns.negative) not in (None, ""):
            yield _text(row, columns.negative), 0.0
        return
    yield _text(row, columns.text), _label(row, columns.label)


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise ValueError(f"found the columns {', '.join(row)}, expected {name}; say which column it is")
    found = row[name]
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{name}: found {found!r}, expected a text")
    return found.strip()


def _label(row: Mapping[str, Any], name: str) -> float:
    found = row.get(name, 1)
    try:
        label = float(found)
    except (TypeError, ValueError):
        label = math.nan
    if not 0 <= label < math.inf:
        raise ValueError(f"{name}: found {found!r}, expected a number of 0 or more")
    return label


def _rows(path: Path, suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, column -> value) of each row."""
    number = 0
    try:
        with _opened(path) as lines:
            for number, row in _json(lines) if suffix in (".jsonl", ".ndjson") else _table(lines, suffix == ".tsv"):
                if isinstance(row, str):
                    raise ValueError(f"{path}, line {number}: {row}")
                yield number, row
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, UnicodeDecodeError, csv.Error) as problem:
        raise ValueError(f"{path}, after line {number}: damaged, or no text in UTF-8: {problem}") from None


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == _GZIP:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    if head == _ZSTD:
        return TextIOWrapper(
            zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True),
            encoding="utf-8-sig", newline="",
        )  # fmt: skip
    return path.open(encoding="utf-8-sig", newline="")


def _json(lines: IO[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as problem:
            yield number, f"found {line.strip()[:60]!r}, expected a JSON object: {problem}"
        else:
            yield number, found if isinstance(found, dict) else f"found {found!r:.60}, expected a JSON object"


def _table(lines: IO[str], tabs: bool) -> Iterator[tuple[int, dict[str, Any] | str]]:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        plain = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
        reader = csv.reader(lines, **plain)
        header: list[str] = []
        for cells in reader:
            if not header:
                header = [name.strip() for name in cells]
            elif cells and len(cells) != len(header):
                yield reader.line_num, f"found {len(cells)} cells, expected {len(header)} as in the header"
            elif cells:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    finally:
        csv.field_size_limit(before)
