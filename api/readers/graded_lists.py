"""Makes rankings of the rows of a feature file: each query is one, with the grades and the fields of its items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from feedrank.api.readers import synthetic_times
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.codec import MAX_ITEMS
from feedrank.engine.events.events import RankingEvent
from feedrank.engine.events.ids import MAX_FIELDS, MAX_ID_CHARS
from feedrank.engine.events.item_fields import MAX_VALUES, ItemFields, columns_of

MAX_NAME_CHARS = MAX_ID_CHARS - 56
"""Characters of a file's name and a query's id together, so that the ids that are made of them are short enough."""


class GradedRow(NamedTuple):
    """A document of a query, with its grade."""

    number: int
    """Line of the file, from 1."""
    query: str
    label: float
    fields: Mapping[str, FieldValue | None]
    """None: the file says that the number is missing."""
    item: str | None
    """None: the item gets an id that is made of the file's name, the query and its number among the query's rows."""


def read_rankings(
    rows: Iterable[GradedRow], name: str, source: str, rejects: Rejects, zeros: Sequence[str] = ()
) -> Iterator[RankingEvent]:
    """Yield one ranking for each query, with its rows in the order of the file.

    name: the file's name, for the ids. zeros: fields that are 0 where a row has none. The rows of a query stand
    together; rows of a query that is over already are rejected, as are queries of more values than a list may have.
    """
    seen: set[str] = set()
    repeated = 0
    for query, grouped in groupby(rows, key=lambda row: row.query):
        listed = list(grouped)
        if problem := _problem(query, listed, name, seen, len(zeros)):
            for row in listed:
                rejects.revoke(source, row.number, problem)
            continue
        seen.add(query)
        items, n_repeated = _ids([row.item or f"{name}:{query}:{number}" for number, row in enumerate(listed, 1)])
        repeated += n_repeated
        rejects.tally(synthetic_times.LIST_NOTE)
        yield RankingEvent(
            f"letor:{name}:{query}",
            synthetic_times.list_ms(name, len(seen)),
            items,
            fields={"query_id": query},
            labels=tuple(row.label for row in listed),
            item_fields=_columns(listed, zeros),
        )
    if repeated:
        rejects.note(
            f"{repeated:,} documents are in their query a second time; they got ids that end with #2 and so on"
        )


def _problem(query: str, rows: Sequence[GradedRow], name: str, seen: set[str], n_zeros: int) -> str:
    """Return why the rows can't be a ranking; empty if they can."""
    if query in seen:
        return f"query {query!r} stands elsewhere in the file too; sort its lines by query"
    if len(name) + len(query) > MAX_NAME_CHARS:
        return f"found a query id of {len(query)} characters, expected shorter ones"
    width = n_zeros or len({field for row in rows for field in row.fields})
    if len(rows) > MAX_ITEMS or width > MAX_FIELDS or width * len(rows) > MAX_VALUES:
        return (
            f"found a query of {len(rows):,} lines with {width:,} features, expected at most {MAX_ITEMS:,} lines,"
            f" {MAX_FIELDS:,} features and {MAX_VALUES:,} numbers"
        )
    return ""


def _ids(items: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Return the ids of a query's items, each once, and how many were changed for that."""
    counts: dict[str, int] = {}
    found: dict[str, None] = {}
    n_changed = 0
    for item in items:
        unique, count = item, counts.get(item, 1)
        while unique in found:
            count += 1
            unique = f"{item}#{count}"
        counts[item] = count
        n_changed += unique != item
        found[unique] = None
    return tuple(found), n_changed


def _columns(rows: Sequence[GradedRow], zeros: Sequence[str]) -> ItemFields | None:
    if not zeros:
        return columns_of([{field: value for field, value in row.fields.items() if value is not None} for row in rows])
    columns = {field: tuple(row.fields.get(field, 0.0) for row in rows) for field in zeros}
    return {field: column for field, column in columns.items() if column.count(None) < len(column)} or None
