"""A batch with what it has read of declared fields, as columns of its candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.field_forms import ITEM, LIST, USER, FieldForm
from feedrank.engine.feature import Feature
from feedrank.engine.field_reads import FieldReads
from feedrank.engine.types import Batch
from feedrank.features.declared.counter_plan import CounterPlan
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.term_statistics import TermStatistics
from feedrank.features.declared.value_vocabulary import ValueVocabulary

FAMILY = "declared"
Values: TypeAlias = NDArray[np.float64]
NamedColumns: TypeAlias = list[tuple[Feature, Values]]
"""The columns of a declared feature with their records: (N,) each, NaN where a value is missing."""


@dataclass(frozen=True, eq=False)
class DeclaredBatch:
    """A batch of R requests with N candidates, and what it has read of declared fields."""

    batch: Batch
    reads: FieldReads
    plan: CounterPlan
    vocabularies: Mapping[str, ValueVocabulary]
    """Feature -> the values that it codes."""
    term_statistics: Mapping[str, TermStatistics]
    """Feature -> the document frequencies that it scores by."""

    @cached_property
    def request_index(self) -> NDArray[np.int32]:
        """(N,) index of the request of each candidate."""
        return self.batch.request_index

    def numbers(self, form: FieldForm) -> Values:
        """Return (N,) the number of each candidate, or of its request."""
        column = self.plan.forms.column(form)
        if form.source == ITEM:
            return self.reads.item_numbers[:, column]
        if form.source == LIST:
            return self.reads.list_numbers[:, column]
        of_request = self.reads.user_numbers if form.source == USER else self.reads.request_numbers
        return of_request[:, column][self.request_index]

    def hashes(self, form: FieldForm) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the (N, 2) bounds of the hashes of each candidate, or of its request, and their pool."""
        column, reads = self.plan.forms.column(form), self.reads
        if form.source == ITEM:
            return reads.item_bounds[:, column], reads.state_pool
        if form.source == LIST:
            return reads.list_bounds[:, column], reads.request_pool
        if form.source == USER:
            return reads.user_bounds[:, column][self.request_index], reads.state_pool
        return reads.request_bounds[:, column][self.request_index], reads.request_pool

    def recent_mean(self, form: FieldForm, transformed: Callable[[Values], Values]) -> Values:
        """Return (N,) the mean of a transformed number over the user's latest items that have one."""
        history = transformed(self.reads.history_numbers[:, :, self.plan.forms.column(form)])
        known = ~np.isnan(history)
        total = np.zeros(len(history))
        for slot in range(history.shape[1]):  # in a fixed order, so that the same history gives the same bits
            total += np.where(known[:, slot], history[:, slot], 0.0)
        counts = known.sum(axis=1)
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)[self.request_index]

    def count(self, feature: DeclaredFeature, place: int, half: int) -> tuple[Values, Values, Values, Values]:
        """Return numerator and denominator of a counter of the feature: (N,) by key, then over all keys."""
        index = self.plan.index(self.plan.of_feature[feature.name][place])
        by_key = self.reads.counts[:, index, half]
        overall = self.reads.totals[:, index, half][self.request_index]
        return by_key[:, 0], by_key[:, 1], overall[:, 0], overall[:, 1]


@cache
def record(name: str, sentence: str, unit: str, missing: str, is_category: bool = False) -> Feature:
    """Return the record of a column."""
    return Feature(name, FAMILY, sentence, unit, missing, is_category)
