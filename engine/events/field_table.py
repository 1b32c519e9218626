"""The values of declared fields in a log, as columns: of items and users as they change, of requests and of lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.field_forms import ITEM, LIST, REQUEST, USER, Forms
from feedrank.engine.types import Rows, Times


class ValueColumns(NamedTuple):
    """Columns of n rows: numbers, and lists of hashes as bounds in a pool."""

    numbers: NDArray[np.float64]
    """(numbers, n); NaN where a row has none."""
    starts: NDArray[np.int64]
    """(values, n) first position of each list in the pool."""
    stops: NDArray[np.int64]
    """(values, n)"""

    def take(self, rows: NDArray[np.int64]) -> ValueColumns:
        """Return the columns of some rows; those of a negative row are empty."""
        if not self.numbers.shape[1]:
            return ValueColumns(
                np.full((len(self.numbers), len(rows)), np.nan),
                np.zeros((len(self.starts), len(rows)), np.int64),
                np.zeros((len(self.stops), len(rows)), np.int64),
            )
        chosen = ValueColumns._make(np.ascontiguousarray(column[:, rows]) for column in self)
        if len(rows) and (missing := rows < 0).any():
            chosen.numbers[:, missing] = np.nan
            chosen.starts[:, missing] = chosen.stops[:, missing] = 0
        return chosen


class FieldChanges(NamedTuple):
    """M changes of fields of items and users, in the order of the log."""

    position: NDArray[np.int64]
    """(M,) how many rankings and interactions of the log stand before the change."""
    is_user: NDArray[np.bool_]
    row: Rows
    """(M,) the item's or the user's row."""
    form: NDArray[np.int32]
    """(M,) index of the form among those of its source: the numbers, then the values."""
    valid_s: Times
    """(M,) unix seconds from which the value holds; one that is older than the present value changes nothing."""
    number: NDArray[np.float64]
    start: NDArray[np.int64]
    """(M,) bounds of the hashes in the pool."""
    stop: NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class FieldTable:
    """The declared fields of a log."""

    forms: Forms
    """What the columns hold."""
    changes: FieldChanges
    requests: ValueColumns
    """One row per event: the interactions, then the rankings."""
    lists: ValueColumns
    """One row per impression."""
    ranking: NDArray[np.int64]
    """(I + R,) hash of the ranking that each interaction names, 0: none; then of each ranking itself."""
    session: NDArray[np.int64]
    """(I + R,) hash of the session of each event; 0: none."""
    pool: NDArray[np.int64]
    """The hashes that the bounds of all three refer to."""
    value_counts: Mapping[tuple[str, str, str], Mapping[str, int]] = field(default_factory=dict)
    """Key of a form -> how often the log has each of its values, of the most frequent ones."""
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Source -> the names of all fields that its events have, declared or not; empty unless values are counted."""

    def for_forms(self, forms: Forms) -> FieldTable:
        """Return the table with the columns of other forms. Raises ValueError if it lacks one."""
        if forms.keys == self.forms.keys:
            return self
        if missing := sorted(set(forms.keys) - set(self.forms.keys)):
            raise ValueError(f"found no declared field {'.'.join(missing[0][:2])} in the log; load it with this field")

        def chosen(columns: ValueColumns, source: str) -> ValueColumns:
            numbers = [self.forms.column(form) for form in forms.numbers[source]]
            values = [self.forms.column(form) for form in forms.values[source]]
            return ValueColumns(columns.numbers[numbers], columns.starts[values], columns.stops[values])

        changes, codes = self.changes, np.full(len(self.changes.form), -1, np.int32)
        for source in (ITEM, USER):
            index = forms.indices(source)
            new = np.array([index.get(key, -1) for key in self.forms.indices(source)], np.int32)
            of_source = changes.is_user == (source == USER)
            codes[of_source] = new[changes.form[of_source]]
        kept = codes >= 0
        changes = FieldChanges._make(column[kept] for column in changes._replace(form=codes))
        return replace(
            self, forms=forms, changes=changes, requests=chosen(self.requests, REQUEST), lists=chosen(self.lists, LIST)
        )

    def with_item_rows(self, rows: Rows) -> FieldTable:
        """Return the table for other item rows. rows: old row -> new one, -1: unknown; the last is that of unknown."""
        changes = self.changes
        new = np.where(changes.is_user, changes.row, rows[np.where(changes.is_user, -1, changes.row)])
        return replace(self, changes=changes._replace(row=new.astype(np.int32)))
