"""The family of declared features: it computes the columns that the config declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from feedrank.engine.events.field_forms import ITEM, LIST, REQUEST, USER
from feedrank.engine.field_reads import FieldReads
from feedrank.engine.types import Batch
from feedrank.features.declared.columns import compute
from feedrank.features.declared.counter_plan import CounterPlan
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.declared_batch import FAMILY as FAMILY
from feedrank.features.declared.declared_batch import DeclaredBatch
from feedrank.features.declared.term_statistics import TermStatistics
from feedrank.features.declared.value_vocabulary import CODED_KINDS, ValueVocabulary
from feedrank.features.families.family import Columns, FamilyInputs
from feedrank.features.state_spec import StateSpec


class DeclaredFamily:
    """Computes the columns of all declared features of a batch."""

    def __init__(
        self, spec: StateSpec, vocabularies: Mapping[str, ValueVocabulary],
        term_statistics: Mapping[str, TermStatistics],
    ) -> None:  # fmt: skip
        """vocabularies: feature -> the values that it codes; a feature without one has no values.

        term_statistics: feature -> the document frequencies that it scores by.
        """
        self._term_statistics = term_statistics
        self._features = spec.declared
        self._plan = CounterPlan(spec.declared, spec.counted_types)
        coded = (feature.name for feature in spec.declared if feature.kind in CODED_KINDS)
        self._vocabularies = {name: vocabularies.get(name) or ValueVocabulary.of(()) for name in coded}

    def __call__(self, batch: Batch, _: FamilyInputs) -> Columns:
        """Compute the columns. A batch whose state keeps no declared fields has missing values only."""
        return self._columns(batch, self._features)

    def columns_of_lists(self, batch: Batch) -> Columns:
        """Compute those columns that read what a list brought for its items, which unknown items have too."""
        return self._columns(batch, [feature for feature in self._features if feature.reads_list])

    def by_feature(self, batch: Batch) -> Iterator[tuple[str, Columns]]:
        """Compute one declared feature after another; yield the name of each and its columns."""
        return self._compute(batch, self._features)

    def _columns(self, batch: Batch, features: Sequence[DeclaredFeature]) -> Columns:
        computed = self._compute(batch, features)
        return {record: column for _, columns in computed for record, column in columns.items()}

    def _compute(self, batch: Batch, features: Sequence[DeclaredFeature]) -> Iterator[tuple[str, Columns]]:
        reads = batch.fields or self._nothing(batch)
        declared = DeclaredBatch(batch, reads, self._plan, self._vocabularies, self._term_statistics)
        for feature in features:
            yield feature.name, {record: column.astype(np.float32) for record, column in compute(declared, feature)}

    def _nothing(self, batch: Batch) -> FieldReads:
        forms, rows, requests = self._plan.forms, len(batch.rows), len(batch.at)
        n_counters, halves = self._plan.empty_counters().decay_rates.shape
        numbers = {source: np.full((n, len(forms.numbers[source])), np.nan) for source, n in _sizes(rows, requests)}
        bounds = {source: np.zeros((n, len(forms.values[source]), 2), np.int64) for source, n in _sizes(rows, requests)}
        return FieldReads(
            item_numbers=numbers[ITEM], item_bounds=bounds[ITEM],
            user_numbers=numbers[USER], user_bounds=bounds[USER],
            history_numbers=np.full((*batch.history.shape, len(forms.numbers[ITEM])), np.nan),
            counts=np.zeros((rows, n_counters, halves, 2)), totals=np.zeros((requests, n_counters, halves, 2)),
            request_numbers=numbers[REQUEST], request_bounds=bounds[REQUEST],
            list_numbers=numbers[LIST], list_bounds=bounds[LIST],
            state_pool=np.empty(0, np.int64), request_pool=np.empty(0, np.int64),
        )  # fmt: skip


def _sizes(rows: int, requests: int) -> tuple[tuple[str, int], ...]:
    return (ITEM, rows), (LIST, rows), (USER, requests), (REQUEST, requests)
