"""The kinds of declared features that are made of counts of events."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from feedrank.features.custom_counters import half_life_label
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.declared_batch import DeclaredBatch, NamedColumns, Values, record


def count_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute counts by a key."""
    named: NamedColumns = []
    for index, name, span in _spans(feature):
        counted, _, _, _ = batch.count(feature, 0, index)
        sentence = f"Number of {' or '.join(feature.of)} events{_by(feature)}, {span}."
        named.append((record(name, sentence, "log(1 + count)", "never"), np.log1p(counted)))
    return named


def rate_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute rates by a key, smoothed towards the overall rate."""
    named: NamedColumns = []
    for index, name, span in _spans(feature):
        counted, over, all_counted, all_over = batch.count(feature, 0, index)
        average = np.where(all_over > 0, all_counted / np.maximum(all_over, 1e-300), 0.0)
        prior = _prior(feature, average)
        smoothed = over + prior
        values = np.where(smoothed > 0, (counted + prior * average) / np.maximum(smoothed, 1e-300), np.nan)
        of, per = " or ".join(feature.of), " or ".join(feature.per)
        ending = ", smoothed towards the overall rate" if feature.smoothing or feature.prior_of else ""
        sentence = f"Number of {of} events per {per} event{_by(feature, ',')}, {span}{ending}."
        missing = "never" if feature.smoothing and not feature.prior_of else f"there is no {per} event of the key"
        named.append((record(name, sentence, f"{of} per {per}", missing), values))
    return named


def interacted_with_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute which share of the user's or the session's interactions was with items of the same value."""
    named: NamedColumns = []
    of, who = " or ".join(feature.of), feature.by
    is_recent = bool(feature.latest or feature.windows_h)
    for index, name, span in _spans(feature):
        shared, _, everything, _ = batch.count(feature, 0, index)
        if not is_recent:
            everything = batch.count(feature, 1, index)[0]
        if feature.share:
            values = np.where(everything > 0, shared / np.maximum(everything, 1e-300), np.nan)
            sentence = f"Share of the {who}'s {of} events with items of the same {feature.from_}, {span}."
            named.append((record(name, sentence, "share", f"the {who} has no {of} event"), values))
        else:
            sentence = f"Number of the {who}'s {of} events with items of the same {feature.from_}, {span}."
            named.append((record(name, sentence, "log(1 + count)", "never"), np.log1p(shared)))
    return named


def _spans(feature: DeclaredFeature) -> Iterator[tuple[int, str, str]]:
    """Yield each half-life or window: its index, the name of its column, and what it is, in words."""
    if feature.kind == "interacted_with" and feature.latest and not feature.windows_h:
        yield 0, feature.name, f"among the latest {feature.latest}"
        return
    hours = feature.windows_h or feature.half_lives_h
    for index, span in enumerate(hours):
        label = half_life_label(span)
        name = feature.name if len(hours) == 1 else f"{feature.name}_{label}"
        if feature.windows_h:
            yield index, name, f"in the last {label}"
        else:
            yield index, name, "without decay" if label == "all" else f"with a half-life of {label}"


def _by(feature: DeclaredFeature, before: str = "") -> str:
    return f"{before} by {' and '.join(feature.key)}" if feature.key else ""


def _prior(feature: DeclaredFeature, average: Values) -> Values:
    """Return how many events of the denominator are added: `smoothing`, or as many as `prior_of` events come with."""
    if not feature.prior_of:
        return np.full(len(average), feature.smoothing)
    return np.where(average > 0, feature.prior_of / np.where(average > 0, average, 1), 0.0)
