"""Decides once for a file how the cells of its columns are read: ids, numbers, lists and times."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeAlias

from feedrank.api.readers.import_options import ImportOptions
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.times import TimeReader
from feedrank.engine.events.checks import EventError
from feedrank.engine.events.ids import MISSING_IDS, is_missing, is_scientific, is_whole_float

Convert: TypeAlias = Callable[[str], Any]

LIST_COLUMNS = ("category", "tags", "items", "labels", "positions", "scores", "propensities", "team")
"""Columns whose cells are lists, separated by '|'."""
_NUMBER_LISTS = ("positions", "scores", "propensities")
_NUMBERS = ("value", "dwell_ms")
ID_COLUMNS = ("id", "item", "user", "session", "ranking", "items", "category", "tags")
"""Columns whose cells are ids, or names that are compared like ids."""
TIME_COLUMNS = ("timestamp", "published")
SAMPLE_ROWS = 1000
"""First records of a file that decide how its columns are read."""

_FRACTION = re.compile(r"\d+\.\d*[1-9]\d*", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d{1,3}(\.\d{3})*,\d+|[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+", re.ASCII)


class ColumnReader:
    """Turns the cells of a row into values, by decisions that were made from the first records of its file.

    Whole floats of ids (123.0, as pandas writes a column with gaps) lose their `.0` if the column holds nothing else;
    the caller says for which columns that is so. Raises ValueError if the times of a column fit no unit.
    """

    def __init__(
        self, header: Sequence[str], sample: Sequence[Sequence[str]], float_columns: Collection[str],
        options: ImportOptions, rejects: Rejects,
    ) -> None:  # fmt: skip
        cells = {name: [row[index] for row in sample] for index, name in enumerate(header) if name}
        self._times = {name: TimeReader(options, name, cells[name]) for name in TIME_COLUMNS if name in cells}
        self._converts: list[tuple[int, str, Convert | None]] = []
        self._rejects = rejects
        for index, name in enumerate(header):
            if name:
                self._converts.append((index, name, self._convert(name, cells[name], name in float_columns)))
        rejects.note(*map(float_note, sorted(float_columns)))

    def read(self, cells: Sequence[str]) -> dict[str, Any]:
        """Return column -> value of a row; empty cells stay empty text. Raises EventError."""
        return {
            name: cells[index] if convert is None or cells[index] == "" else convert(cells[index])
            for index, name, convert in self._converts
        }

    def finish(self) -> None:
        """Note how many cells each decision applied to."""
        for reader in self._times.values():
            self._rejects.note(*reader.notes())

    def _convert(self, name: str, cells: Sequence[str], is_float: bool) -> Convert | None:
        if name in self._times:
            read = self._times[name].read
            return lambda cell: None if is_missing(cell) else read(cell)
        if name in LIST_COLUMNS:
            return _list_convert(name, is_float)
        if is_float:
            return lambda cell: cell[:-2] if cell.endswith(".0") else cell
        if name in ID_COLUMNS:
            self._note_odd_ids(name, cells)
        if name in _NUMBERS:
            commas = [cell for cell in cells if "," in cell]
            is_decimal = bool(commas) and all(map(_DECIMAL_COMMA.fullmatch, commas))
            if is_decimal and not all(map(_THOUSANDS.fullmatch, commas)):
                self._rejects.note(f"numbers in {name!r} have a decimal comma")
                return lambda cell: None if is_missing(cell) else _decimal_comma(name, cell)
            return lambda cell: None if is_missing(cell) else cell
        return None

    def _note_odd_ids(self, name: str, cells: Sequence[str]) -> None:
        if any(map(is_scientific, cells)):
            self._rejects.note(f"ids in {name!r} look like 1.23E+15; a spreadsheet may have cut off their digits")
        if any(map(is_whole_float, cells)) and not any(map(_FRACTION.fullmatch, cells)):
            self._rejects.note(f"some ids in {name!r} look like 1.0 and others do not; they were kept as they are")


def float_columns(
    header: Sequence[str], sample: Sequence[Sequence[str]], again: Callable[[], Iterator[Sequence[str]]]
) -> frozenset[str]:
    """Return the id columns that are whole floats (123.0) or missing in the whole file.

    sample: the cells of its first records. again: reads all of them again, which is done only if the sample is so.
    """
    candidates = _float_candidates(header, sample)
    if not candidates or len(sample) < SAMPLE_ROWS:
        return frozenset(candidates)
    return _whole_float_columns(header, candidates, again())


def float_note(name: str) -> str:
    """Return what to say of a column that `float_columns` returned."""
    return f"{name!r} holds whole numbers with '.0', as pandas writes them; they were read without it"


def _float_candidates(header: Sequence[str], sample: Sequence[Sequence[str]]) -> list[str]:
    """Return the id columns whose cells in a sample are all whole floats or missing, and not all missing."""
    found = []
    for index, name in enumerate(header):
        if name in ID_COLUMNS:
            parts = {part for row in sample for part in _parts(name, row[index]) if not is_missing(part)}
            if parts and all(map(is_whole_float, parts)):
                found.append(name)
    return found


def _whole_float_columns(
    header: Sequence[str], candidates: Collection[str], rows: Iterator[Sequence[str]]
) -> frozenset[str]:
    """Return those of the candidates whose cells in all rows are whole floats or missing."""
    left = {header.index(name): name for name in candidates}
    for row in rows:
        for index, name in list(left.items()):
            if any(not is_missing(part) and not is_whole_float(part) for part in _parts(name, row[index])):
                del left[index]
        if not left:
            break
    return frozenset(left.values())


def _parts(name: str, cell: str) -> list[str]:
    return [part.strip() for part in cell.split("|")] if name in LIST_COLUMNS else [cell]


def _list_convert(name: str, is_float: bool) -> Convert:
    def convert(cell: str) -> Any:
        parts = [part.strip() for part in cell.split("|")]
        if is_float:
            parts = [part[:-2] if part.endswith(".0") else part for part in parts]
        if name in ("category", "tags"):
            return [part for part in parts if part not in MISSING_NAMES]
        if name not in _NUMBER_LISTS:
            return parts  # empty parts stay: a missing label keeps its position, and an item without an id is rejected
        try:
            return [float(part) for part in parts]
        except ValueError:
            raise EventError(name, f"found {cell!r}, expected numbers separated by '|'") from None

    return convert


MISSING_NAMES = MISSING_IDS - {"NA", "N/A", "n/a", "undefined"}
"""Texts for a missing category or tag; NA may be North America."""


def _decimal_comma(name: str, cell: str) -> str:
    if "," in cell:
        return cell.replace(".", "").replace(",", ".")
    if "." in cell:
        raise EventError(name, f"found {cell!r} in a column of numbers with a decimal comma, expected one form")
    return cell
