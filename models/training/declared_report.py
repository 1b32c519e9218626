"""Reports on declared features in training rows: missing shares, constants and cut vocabularies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.types import Matrix
from feedrank.features.builder import FeatureBuilder
from feedrank.features.declared.field_coverage import field_problems
from feedrank.features.declared.forms import all_forms_of
from feedrank.features.declared.value_vocabulary import CODED_KINDS


@dataclass(frozen=True, slots=True)
class DeclaredReport:
    """What training rows say of the declared features."""

    missing: tuple[tuple[str, float], ...] = ()
    """Declared feature -> share of the rows that have none of its values, 0 to 1."""
    rows: int = 0
    """Number of training rows that were looked at."""
    warnings: tuple[str, ...] = ()
    """Features without values, constants, and values that have no code, one sentence each."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The missing shares, in one sentence; nothing without declared features."""
        if not self.missing:
            return ()
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.missing)
        return (f"missing values of declared features, in {self.rows:,} training rows: {shares}",)


def declared_report(builder: FeatureBuilder, sample: Matrix, log: EventTable) -> DeclaredReport:
    """Return the report on a sample of the training rows: (N, F)."""
    index = {name: column for column, name in enumerate(builder.names)}
    reasons = {
        name: problem.reason for problem in field_problems(builder.spec.declared, log) for name in problem.features
    }
    missing, warnings = [], []
    for name, records in builder.declared_columns():
        columns = sample[:, [index[record.name] for record in records]]
        is_missing = np.isnan(columns).all(axis=1)
        missing.append((name, float(is_missing.mean()) if len(columns) else 1.0))
        if is_missing.all():
            why = reasons.get(name, "no row of the log has the values that it needs")
            warnings.append(f"the declared feature {name} is missing in all {len(columns):,} training rows: {why}")
        elif not is_missing.any() and len(columns) > 1 and (columns == columns[0]).all():
            value = ", ".join(f"{part:.6g}" for part in columns[0])
            why = reasons.get(name, "it says nothing")
            warnings.append(
                f"the declared feature {name} is constant in {len(columns):,} training rows ({value}): {why}"
            )
    if not missing:
        return DeclaredReport()
    return DeclaredReport(tuple(missing), len(sample), (*warnings, *_cut_vocabularies(builder, log)))


def _cut_vocabularies(builder: FeatureBuilder, log: EventTable) -> list[str]:
    """Return which features have more values in the log than codes, one sentence each."""
    found = []
    for feature in builder.spec.declared:
        if feature.kind not in CODED_KINDS or feature.values or log.fields is None:
            continue
        counts = Counter[str]()
        for form in all_forms_of(feature):
            counts.update(log.fields.value_counts.get(form.key, {}))
        if len(counts) > feature.max_values:
            kept = builder.item_model.vocabularies.get(feature.name)
            cut = 1 - sum(counts.get(value, 0) for value in (kept.values if kept else ())) / sum(counts.values())
            found.append(
                f"the declared feature {feature.name} has codes for the {feature.max_values:,} most frequent of"
                f" {len(counts):,} values (max_values); the others, {cut:.1%} of those in the log, count as missing"
            )
    return found
