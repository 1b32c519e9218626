"""Collects the declared fields of events and requests, and encodes them by their forms."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import InteractionEvent, ItemEvent, RankingEvent, UserEvent, valid_from
from feedrank.engine.events.field_forms import (
    ALL_FIELDS,
    ITEM,
    LIST,
    REQUEST,
    SOURCES,
    USER,
    FieldForm,
    Forms,
    hash_or_zero,
    id_hash,
)
from feedrank.engine.events.field_table import FieldChanges, FieldTable, ValueColumns

TIMESTAMP = "timestamp"
"""A field that every event of an item or a user with a time has: its timestamp, in milliseconds."""
MAX_COUNTED_VALUES = 100_000
"""Distinct values of a form that a table counts, roughly; the least frequent ones are dropped."""
MAX_FIELD_NAMES = 10_000
"""Names of fields of one source that are kept, roughly."""


class FieldCollector:
    """Collects the declared fields of events, for an event table."""

    def __init__(self, forms: Forms, counts_values: bool = False) -> None:
        """counts_values: also count how often each value occurs, and keep the names of all fields; for training."""
        self._forms = forms
        self._pool = _Pool(counts_values)
        self._changes: dict[str, array[Any]] = {name: array(code) for name, code in _CHANGE_CODES.items()}
        self._interactions, self._rankings, self._lists = (_Rows(forms, source) for source in (REQUEST, REQUEST, LIST))
        self._named, self._own = array("q"), array("q")
        self._interaction_sessions, self._ranking_sessions = array("q"), array("q")
        self._seen: dict[str, set[str]] | None = {source: set() for source in SOURCES} if counts_values else None

    @property
    def reads_users(self) -> bool:
        """Whether any form is of a field of users."""
        return bool(self._forms.numbers[USER] or self._forms.values[USER])

    def add_item(self, event: ItemEvent, row: int, position: int) -> None:
        """Add an item event. position: how many rankings and interactions stand before it."""
        self._add_changes(ITEM, event, row, position)

    def add_user(self, event: UserEvent, row: int, position: int) -> None:
        """Add a user event."""
        self._add_changes(USER, event, row, position)

    def add_interaction(self, event: InteractionEvent) -> None:
        """Add the fields of an interaction."""
        self._named.append(hash_or_zero(event.ranking))
        self._interaction_sessions.append(hash_or_zero(event.session))
        self._interactions.add(event.fields, self._pool)

    def add_ranking(self, event: RankingEvent) -> None:
        """Add the fields of a ranking's request and of its items."""
        self._own.append(id_hash(event.id))
        self._ranking_sessions.append(hash_or_zero(event.session))
        request, given = request_fields(event.fields, event.surface), item_fields_of(event)
        self._rankings.add(request, self._pool)
        self._note_names(REQUEST, request)
        self._note_names(LIST, given)
        for index in range(len(event.items)):
            self._lists.add({name: values[index] for name, values in given.items()}, self._pool)

    def build(self, order: NDArray[np.int64] | None) -> FieldTable:
        """Return the table of all events added so far. order: of the interactions; None: as they were added."""
        columns = {name: np.frombuffer(column, _DTYPES[column.typecode]) for name, column in self._changes.items()}
        changes = FieldChanges(**columns | {"is_user": columns["is_user"] == 1})
        interactions, rankings = self._interactions.columns(), self._rankings.columns()
        of_interactions = [np.frombuffer(column, np.int64) for column in (self._named, self._interaction_sessions)]
        of_rankings = [np.frombuffer(column, np.int64) for column in (self._own, self._ranking_sessions)]
        if order is not None:
            interactions, of_interactions = interactions.take(order), [column[order] for column in of_interactions]
        ranking, session = map(np.concatenate, zip(of_interactions, of_rankings, strict=True))
        requests = ValueColumns._make(
            np.concatenate(parts, axis=1) for parts in zip(interactions, rankings, strict=True)
        )
        return FieldTable(
            self._forms, changes, requests, self._lists.columns(), ranking, session, self._pool.hashes(),
            self._pool.counts, {source: frozenset(names) for source, names in (self._seen or {}).items()},
        )  # fmt: skip

    def _note_names(self, source: str, fields: Mapping[str, object]) -> None:
        if self._seen is not None and len(self._seen[source]) < MAX_FIELD_NAMES:
            self._seen[source].update(fields)

    def _add_changes(self, source: str, event: ItemEvent | UserEvent, row: int, position: int) -> None:
        columns = self._changes
        self._note_names(source, event.fields)
        fields: Mapping[str, FieldValue] = event.fields
        if (source, TIMESTAMP) in self._forms.of_field and event.timestamp > 0 and TIMESTAMP not in fields:
            fields = {**fields, TIMESTAMP: float(event.timestamp)}
        for name, value in fields.items():
            for index, form in self._forms.of_field.get((source, name), ()):
                number, start, stop = self._pool.encode(form, value)
                changed = (position, source == USER, row, index, valid_from(event) / 1000, number, start, stop)
                for column, entry in zip(columns.values(), changed, strict=True):
                    column.append(entry)


class _Pool:
    """Encodes values, and collects their hashes."""

    def __init__(self, counts_values: bool = False) -> None:
        self._hashes = array("q")
        self._counts_values = counts_values
        self.counts: dict[tuple[str, str, str], Counter[str]] = {}

    def encode(self, form: FieldForm, value: FieldValue) -> tuple[float, int, int]:
        """Return a number, or the bounds of hashes, which are added to the pool."""
        encoded = form.encode(value)
        if isinstance(encoded, float | int):
            return float(encoded), 0, 0
        if self._counts_values and form.texts is not None:
            counts = self.counts.setdefault(form.key, Counter())
            counts.update(form.texts(value))
            if len(counts) > 2 * MAX_COUNTED_VALUES:
                self.counts[form.key] = Counter(dict(counts.most_common(MAX_COUNTED_VALUES)))
        start = len(self._hashes)
        self._hashes.extend(encoded)
        return float("nan"), start, len(self._hashes)

    def hashes(self) -> NDArray[np.int64]:
        return np.frombuffer(self._hashes, np.int64)


class _Rows:
    """Collects the values of one source, row by row."""

    def __init__(self, forms: Forms, source: str) -> None:
        self._numbers, self._values = forms.numbers[source], forms.values[source]
        self._cells = array("d")
        self._bounds = array("q")
        self._n = 0

    def add(self, fields: Mapping[str, FieldValue | None], pool: _Pool) -> None:
        self._n += 1
        value: Any
        for form in self._numbers:
            value = fields.get(form.field)
            self._cells.append(float("nan") if value is None else pool.encode(form, value)[0])
        for form in self._values:
            value = fields if form.field == ALL_FIELDS else fields.get(form.field)
            self._bounds.extend((0, 0) if value is None else pool.encode(form, value)[1:])

    def columns(self) -> ValueColumns:
        numbers = np.frombuffer(self._cells).reshape(self._n, len(self._numbers))
        bounds = np.frombuffer(self._bounds, np.int64).reshape(self._n, len(self._values), 2)
        starts, stops = bounds[:, :, 0], bounds[:, :, 1]
        return ValueColumns._make(np.ascontiguousarray(part) for part in (numbers.T, starts.T, stops.T))


def columns_of(
    forms: Forms, source: str, rows: Sequence[Mapping[str, FieldValue | None]]
) -> tuple[ValueColumns, NDArray[np.int64]]:
    """Return the columns of some rows of one source, and their pool: the same as in the table of a log."""
    collected, pool = _Rows(forms, source), _Pool()
    for fields in rows:
        collected.add(fields, pool)
    return collected.columns(), pool.hashes()


def request_fields(fields: Mapping[str, FieldValue], surface: str | None) -> Mapping[str, FieldValue]:
    """Return the fields of a request: those of its ranking event, and where it is shown, as `surface`."""
    return fields if surface is None else {**fields, "surface": surface}


def item_fields_of(event: RankingEvent) -> Mapping[str, Sequence[FieldValue | None]]:
    """Return the fields that a list brought for its items: name -> one value per item."""
    return event.item_fields or {}


_CHANGE_CODES = {
    "position": "q", "is_user": "b", "row": "i", "form": "i", "valid_s": "d", "number": "d", "start": "q", "stop": "q",
}  # fmt: skip
_DTYPES = {"q": np.int64, "b": np.int8, "i": np.int32, "d": np.float64}
