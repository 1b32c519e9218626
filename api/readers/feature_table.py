"""Reads feature files that are tables: a query id, a label and a column for each feature: `qid,label,bm25,price`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from feedrank.api.readers import delimited
from feedrank.api.readers.columns import SAMPLE_ROWS
from feedrank.api.readers.feature_lines import MISSING_NUMBERS
from feedrank.api.readers.graded_lists import GradedRow
from feedrank.api.readers.import_options import ImportOptions
from feedrank.api.readers.rejects import Rejects, peek
from feedrank.engine.events.checks import AMOUNT, FieldValue, as_float, short_repr
from feedrank.engine.events.ids import MAX_TEXT_CHARS, canonical_id, check_id, is_whole_float

QUERY, LABEL, ITEM = "qid", "label", "item"
NAMES: dict[str, tuple[str, ...]] = {
    QUERY: (QUERY, "query_id", "queryid"),
    LABEL: (LABEL, "grade", "relevance", "rel", "target"),
    ITEM: (ITEM, "docid", "doc_id", "item_id", "itemid"),
}
"""Part of a row -> names that its column may have, in lower case and in order of preference."""
KNOWN = frozenset(name for names in NAMES.values() for name in names)
"""All these names."""


def is_feature_table(columns: Collection[str]) -> bool:
    """Return whether a table has a column of query ids, one of labels, and others; it may have one of items."""
    lower = {column.strip().lower() for column in columns}
    parts = _parts(tuple(lower))
    return {QUERY, LABEL} <= parts.keys() and len(lower) > len(parts) and not lower & {"event", "user", "timestamp"}


def read_rows(
    numbered: Iterator[tuple[int, str]], source: str, rejects: Rejects, options: ImportOptions
) -> Iterator[GradedRow]:
    """Read the rows of a table with a header. Raises ValueError for a table without query ids or labels.

    A column whose first values are all numbers holds numbers: anything else in it is rejected. Other columns are texts.
    An empty cell is a missing value.
    """
    table = delimited.split_table(numbered, source, rejects, options, KNOWN)
    if table is None:
        return
    parts = _parts(table.header)
    if missing := [name for name in (QUERY, LABEL) if name not in parts]:
        raise ValueError(
            f"{source}: found the columns {', '.join(filter(None, table.header))}, expected also"
            f" {' and '.join(missing)}; give them with --map, such as --map search=qid,grade=label"
        )
    at = {part: table.header.index(name) for part, name in parts.items()}
    features = [(index, name) for index, name in enumerate(table.header) if name and index not in at.values()]
    if not features:
        raise ValueError(f"{source}: found no column of a feature beside {', '.join(parts.values())}")
    sample, records = peek(table.records, SAMPLE_ROWS)
    texts = {index for index, _ in features if not _are_numbers([row.cells[index] for row in sample])}
    if texts:
        rejects.note(f"columns of texts: {', '.join(name for index, name in features if index in texts)}")
    for number, text, cells in records:
        try:
            query, label = _identifier(cells[at[QUERY]]), as_float(cells[at[LABEL]])
            if query is None:
                raise ValueError(f"found no {parts[QUERY]}, expected the id of a query")
            if label not in AMOUNT:
                raise ValueError(f"found {short_repr(cells[at[LABEL]])}, expected a number as {parts[LABEL]}")
            item = _identifier(cells[at[ITEM]]) if ITEM in at else None
            check_id(item, parts.get(ITEM, ITEM), one_line=True)
            fields = {name: _value(name, cells[index], index in texts) for index, name in features}
        except ValueError as problem:
            rejects.reject(source, number, str(problem), text)
            continue
        rejects.accept(number)
        yield GradedRow(number, query, label or 0.0, fields, item)


def _parts(header: Sequence[str]) -> dict[str, str]:
    found = {part: next((name for name in names if name in header), None) for part, names in NAMES.items()}
    return {part: name for part, name in found.items() if name is not None}


def _identifier(cell: str) -> str | None:
    identifier = canonical_id(cell)
    return None if identifier is None else str(identifier[:-2] if is_whole_float(identifier) else identifier)


def _are_numbers(cells: Sequence[str]) -> bool:
    return all(cell in MISSING_NUMBERS or _finite(cell) is not None for cell in cells)


def _value(name: str, cell: str, is_text: bool) -> FieldValue | None:
    if cell in MISSING_NUMBERS:
        return None
    if is_text:
        if len(cell) > MAX_TEXT_CHARS:
            raise ValueError(f"found {len(cell):,} characters in {name!r}, expected at most {MAX_TEXT_CHARS:,}")
        return cell
    number = _finite(cell)
    if number is None:
        raise ValueError(f"found {short_repr(cell)}, expected a finite number in the column {name!r}")
    return number


def _finite(cell: str) -> float | None:
    number = as_float(cell)
    return number if number is not None and math.isfinite(number) else None
