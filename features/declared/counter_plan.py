"""The plan of declared features: which forms of fields the state keeps, and which counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feedrank.engine.events.field_forms import ITEM, REQUEST, USER, FieldForm, Forms
from feedrank.features.custom_counters import IMPRESSION, IMPRESSION_BIT
from feedrank.features.declared import encoders, keyed_counters, keyed_windows, recent_interactions
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.forms import all_forms_of
from feedrank.features.declared.keyed_counters import KeyedCounters
from feedrank.features.declared.keyed_windows import KeyedWindows
from feedrank.features.declared.recent_interactions import RecentInteractions
from feedrank.features.declared.source import SESSION, Source

DEFAULT_LATEST = 100
"""Interactions that interacted_with compares with in windows, unless `latest` says how many."""
_SECONDS_PER_HOUR = 3_600.0
_ROWS = {ITEM: keyed_counters.ITEM_ROW, USER: keyed_counters.USER_ROW, SESSION: keyed_counters.SESSION_ID}
_VALUES = {ITEM: keyed_counters.ITEM_VALUES, USER: keyed_counters.USER_VALUES, REQUEST: keyed_counters.REQUEST_VALUES}


@dataclass(frozen=True, slots=True)
class Counter:
    """A decayed count by a key."""

    of: tuple[str, ...]
    per: tuple[str, ...]
    """Event types of the denominator; empty: none."""
    key: tuple[Source, ...]
    half_lives_h: tuple[float, ...]
    """Empty for a counter with windows or of the latest interactions."""
    windows_h: tuple[float, ...] = ()
    bucket_h: float = 0.0
    buckets: int = 0
    latest: int = 0
    """How many of the latest interactions of the first part of the key are compared by the second; 0: it counts."""

    @property
    def width(self) -> int:
        """Number of half-lives or windows."""
        return len(self.half_lives_h) + len(self.windows_h)


class CounterPlan:
    """The forms and the counters of a list of declared features."""

    def __init__(self, features: Sequence[DeclaredFeature], types: Sequence[str]) -> None:
        """types: interaction types in the order of the bits of type masks; they include those of the features."""
        self._types = tuple(types)
        self.of_feature = {feature.name: counters_of(feature) for feature in features}
        self.counters = list(dict.fromkeys(counter for group in self.of_feature.values() for counter in group))
        self.forms = forms_of_all(features)
        self.counts_by_request = any(part.entity == REQUEST for counter in self.counters for part in counter.key)

    def index(self, counter: Counter) -> int:
        """Return the index of a counter in the table."""
        return self.counters.index(counter)

    def empty_counters(self) -> KeyedCounters:
        """Return the table of all counters, without keys."""
        rates = np.full((len(self.counters), self._width), -1.0)
        parts = np.zeros((len(self.counters), 2, 2), np.int64)
        for c, counter in enumerate(self.counters):
            rates[c, : len(counter.half_lives_h)] = np.log(2) / (np.array(counter.half_lives_h) * _SECONDS_PER_HOUR)
            for place, part in enumerate(counter.key):
                column = self.forms.column(_form_of(part)) if part.field else 0
                parts[c, place] = (_VALUES if part.field else _ROWS)[part.entity], column
        numerator, denominator = (
            np.array([self._bits(names) for names in columns], np.int64)
            for columns in ([c.of for c in self.counters], [c.per for c in self.counters])
        )
        return keyed_counters.empty_counters(numerator, denominator, parts, rates)

    def empty_windows(self) -> KeyedWindows:
        """Return the table of the windows of all counters, without keys."""
        spans = np.zeros((len(self.counters), self._width), np.int64)
        for c, counter in enumerate(self.counters):
            if counter.buckets:
                ratios = np.array(counter.windows_h) / counter.bucket_h
                spans[c, : len(ratios)] = np.ceil(np.round(ratios, 9)) + 1
        bucket_s = np.array([round(c.bucket_h * _SECONDS_PER_HOUR, 3) for c in self.counters], np.float64)
        return keyed_windows.empty_windows(bucket_s, np.array([c.buckets for c in self.counters], np.int64), spans)

    def empty_recent(self) -> RecentInteractions:
        """Return the table of the latest interactions of all counters, without any."""
        spans_s = np.full((len(self.counters), self._width), -1.0)
        for c, counter in enumerate(self.counters):
            if counter.latest:
                spans_s[c, : counter.width] = np.round(np.array(counter.windows_h) * _SECONDS_PER_HOUR, 3)
        columns = [self.forms.column(_form_of(c.key[1])) if c.latest else 0 for c in self.counters]
        sizes = np.array([counter.latest for counter in self.counters], np.int64)
        return recent_interactions.empty_recent(sizes, np.array(columns, np.int64), spans_s)

    @property
    def _width(self) -> int:
        return max((counter.width for counter in self.counters), default=0)

    def _bits(self, names: Sequence[str]) -> int:
        return sum(IMPRESSION_BIT if name == IMPRESSION else 1 << self._types.index(name) for name in set(names))


def forms_of_all(features: Sequence[DeclaredFeature]) -> Forms:
    """Return the forms that a list of features and their counters read."""
    forms: list[FieldForm] = [form for feature in features for form in all_forms_of(feature)]
    counters = (counter for feature in features for counter in counters_of(feature))
    forms += [_form_of(part) for counter in counters for part in counter.key if part.field]
    return Forms(forms)


def counters_of(feature: DeclaredFeature) -> tuple[Counter, ...]:
    """Return the counters that a feature reads."""
    if feature.kind in ("count", "rate"):
        per = feature.per if feature.kind == "rate" else ()
        if not feature.windows_h:
            return (Counter(feature.of, per, feature.keys, feature.half_lives_h),)
        return (Counter(feature.of, per, feature.keys, (), feature.windows_h, *feature.ring),)
    if feature.kind == "interacted_with":
        user = Source(feature.by, "")
        if feature.latest or feature.windows_h:
            windows, latest = feature.windows_h or (np.inf,), feature.latest or DEFAULT_LATEST
            return (Counter(feature.of, (), (user, feature.source), (), windows, latest=latest),)
        return tuple(Counter(feature.of, (), key, feature.half_lives_h) for key in ((user, feature.source), (user,)))
    return ()


def interaction_types(features: Sequence[DeclaredFeature]) -> tuple[str, ...]:
    """Return the distinct interaction types that the counters of these features name."""
    counters = [counter for feature in features for counter in counters_of(feature)]
    named = dict.fromkeys(kind for counter in counters for kind in (*counter.of, *counter.per))
    return tuple(kind for kind in named if kind != IMPRESSION)


def _form_of(part: Source) -> FieldForm:
    return encoders.values(part.entity, part.field)
