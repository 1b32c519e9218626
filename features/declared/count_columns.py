"""The kinds of declared features that are made of counts of events."""

from __future__ import annotations

import numpy as np

from feedrank.features.custom_counters import half_life_label
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.declared_batch import DeclaredBatch, NamedColumns, record


def count_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute decayed counts by a key."""
    named: NamedColumns = []
    for half, hours in enumerate(feature.half_lives_h):
        counted, _, _, _ = batch.count(feature, 0, half)
        name = _with_half_life(feature, hours)
        sentence = f"Number of {' or '.join(feature.of)} events by {' and '.join(feature.key)}, {_decay(hours)}."
        named.append((record(name, sentence, "log(1 + count)", "never"), np.log1p(counted)))
    return named


def rate_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute decayed rates by a key, smoothed towards the overall rate."""
    named: NamedColumns = []
    for half, hours in enumerate(feature.half_lives_h):
        counted, over, all_counted, all_over = batch.count(feature, 0, half)
        average = np.where(all_over > 0, all_counted / np.maximum(all_over, 1e-300), 0.0)
        smoothed = over + feature.smoothing
        values = np.where(smoothed > 0, (counted + feature.smoothing * average) / np.maximum(smoothed, 1e-300), np.nan)
        of, per = " or ".join(feature.of), " or ".join(feature.per)
        sentence = (
            f"Number of {of} events per {per} event, by {' and '.join(feature.key)}, {_decay(hours)}, smoothed towards "
            "the overall rate."
        )
        missing = "never" if feature.smoothing else f"there is no {per} event of the key"
        named.append((record(_with_half_life(feature, hours), sentence, f"{of} per {per}", missing), values))
    return named


def interacted_with_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute which share of the user's interactions was with items of the same value."""
    named: NamedColumns = []
    for half, hours in enumerate(feature.half_lives_h):
        shared, everything = batch.count(feature, 0, half)[0], batch.count(feature, 1, half)[0]
        values = np.where(everything > 0, shared / np.maximum(everything, 1e-300), np.nan)
        of = " or ".join(feature.of)
        sentence = f"Share of the user's {of} events with items of the same {feature.from_}, {_decay(hours)}."
        feature_record = record(_with_half_life(feature, hours), sentence, "share", f"the user has no {of} event")
        named.append((feature_record, values))
    return named


def _with_half_life(feature: DeclaredFeature, hours: float) -> str:
    return feature.name if len(feature.half_lives_h) == 1 else f"{feature.name}_{half_life_label(hours)}"


def _decay(hours: float) -> str:
    label = half_life_label(hours)
    return "without decay" if label == "all" else f"with a half-life of {label}"
