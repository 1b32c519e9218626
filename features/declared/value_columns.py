"""The kinds of declared features that are made of the values of fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from feedrank.features.declared import local_time as clock
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.declared_batch import DeclaredBatch, NamedColumns, Values, record
from feedrank.features.declared.encoders import zone_code
from feedrank.features.declared.forms import forms_of, zone_source
from feedrank.features.declared.source import RECENT

_TRANSFORMS: Mapping[str, Callable[[Values], Values]] = {
    "": lambda x: x,
    "log1p": lambda x: np.where(x > -1, np.log1p(np.maximum(x, -1 + 1e-12)), np.nan),
    "log": lambda x: np.where(x > 0, np.log(np.maximum(x, 1e-300)), np.nan),
    "sqrt": lambda x: np.where(x >= 0, np.sqrt(np.maximum(x, 0)), np.nan),
    "abs": np.abs,
}


def number_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute the number of a field."""
    (form,) = forms_of(feature)
    unit = f"{feature.transform}({form.field})" if feature.transform else "as in the field"
    feature_record = record(feature.name, f"The number {feature.origin}.", unit, f"{feature.origin} has no number")
    return [(feature_record, _adapted(feature, batch.numbers(form)))]


def boolean_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute whether a field says yes."""
    (form,) = forms_of(feature)
    feature_record = record(
        feature.name, f"Whether {feature.origin} says yes.", "1 or 0", f"{feature.origin} says neither"
    )
    return [(feature_record, batch.numbers(form))]


def word_count_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute the number of words of a field."""
    (form,) = forms_of(feature)
    feature_record = record(
        feature.name, f"Number of words of {feature.origin}.", "words", f"there is no {feature.origin}"
    )
    return [(feature_record, _adapted(feature, batch.numbers(form)))]


def item_age_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute the time since a moment that a field says."""
    (form,) = forms_of(feature)
    age = (batch.batch.at[batch.request_index] - batch.numbers(form)) / 3_600
    feature_record = record(feature.name, f"Time since {form.source}.{form.field}.", "hours", "the field has no time")
    return [(feature_record, _adapted(feature, age))]


def local_time_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute a part of the request's moment on a local clock."""
    if feature.from_:
        (form,) = forms_of(feature)
        feature_record = record(
            feature.name, f"The {feature.part} of the time in {feature.from_}, on its own clock.", feature.part,
            f"{feature.from_} is no time",
        )  # fmt: skip
        return [(feature_record, clock.parts(feature.part, batch.numbers(form)))]
    at = batch.batch.at
    if zone_source(feature) is None:
        codes = np.full(len(at), zone_code(feature.zone))
    else:
        (form,) = forms_of(feature)
        codes = batch.reads.request_numbers[:, batch.plan.forms.column(form)]
    values = clock.parts(feature.part, clock.local_seconds(at, codes))
    feature_record = record(
        feature.name, f"The {feature.part} of the request in its time zone, {feature.zone}.", feature.part,
        "the request has no time zone" if zone_source(feature) else "never",
    )  # fmt: skip
    return [(feature_record, values[batch.request_index])]


def category_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute the code of the first value of a field."""
    (form,) = forms_of(feature)
    bounds, pool = batch.hashes(form)
    vocabulary = batch.vocabularies[feature.name]
    has_value = bounds[:, 1] > bounds[:, 0]
    first = pool[np.where(has_value, bounds[:, 0], 0)] if has_value.any() else np.zeros(len(bounds), np.int64)
    codes = np.where(has_value, vocabulary.codes(first), -1)
    feature_record = record(
        feature.name, f"The value of {feature.origin}, as a category.", "code of the value",
        f"{feature.origin} has no value, or none of the {len(vocabulary) or 'values'} that training knew", True,
    )  # fmt: skip
    return [(feature_record, np.where(codes >= 0, codes, np.nan))]


def list_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute a flag for each value of a field."""
    (form,) = forms_of(feature)
    bounds, pool = batch.hashes(form)
    vocabulary = batch.vocabularies[feature.name]
    owners, index = _flattened(bounds)
    codes = vocabulary.codes(pool[index])
    flags = np.zeros((len(bounds), len(vocabulary)))
    flags[owners[codes >= 0], codes[codes >= 0]] = 1
    flags[bounds[:, 0] == bounds[:, 1]] = np.nan
    records = (
        record(f"{feature.name}_{name}", f"Whether {feature.origin} has {value!r}.", "1 or 0",
               f"{feature.origin} has no value")
        for name, value in zip(vocabulary.column_names, vocabulary.values, strict=True)
    )  # fmt: skip
    return list(zip(records, flags.T, strict=True))


def numbers_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute each number that a request or a list brings, whatever its name."""
    (form,) = forms_of(feature)
    bounds, pool = batch.hashes(form)
    vocabulary = batch.vocabularies[feature.name]
    owners, index = _flattened(bounds)
    codes = vocabulary.codes(pool[index[::2]])
    numbers = np.full((len(bounds), len(vocabulary)), np.nan)
    is_known = codes >= 0
    numbers[owners[::2][is_known], codes[is_known]] = pool[index[1::2][is_known]].view(np.float64)
    source = feature.from_.removesuffix("*")
    records = (
        record(f"{feature.name}_{name}", f"The number {source}{value}.", feature.transform or "as in the field",
               f"{source}{value} has no number")
        for name, value in zip(vocabulary.column_names, vocabulary.values, strict=True)
    )  # fmt: skip
    return list(zip(records, _adapted(feature, numbers).T, strict=True))


def distance_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute how far two numbers are apart."""
    one, other = forms_of(feature)
    a = _adapted(feature, batch.numbers(one))
    if feature.other.entity == RECENT:
        b = batch.recent_mean(other, lambda values: _adapted(feature, values))
    else:
        b = _adapted(feature, batch.numbers(other))
    kind = "Difference" if feature.signed else "Distance"
    feature_record = record(
        feature.name, f"{kind} of {feature.from_} to {feature.to}.",
        f"difference of {feature.transform}" if feature.transform else "as in the fields",
        f"{feature.from_} or {feature.to} has no number",
    )  # fmt: skip
    return [(feature_record, a - b if feature.signed else np.abs(a - b))]


def random_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute a number that depends on the request's moment, the item and the seed alone."""
    at_ms = np.round(batch.batch.at * 1_000).astype(np.int64).astype(np.uint64)[batch.request_index]
    seeds = _mix(at_ms ^ _mix(np.full(1, feature.seed, np.int64).astype(np.uint64)))
    mixed = _mix(seeds ^ _mix(batch.batch.rows.astype(np.int64).astype(np.uint64)))
    values = (mixed >> np.uint64(11)).astype(np.float64) / 2**53
    return [(record(feature.name, "A random number of the request and the item.", "0 to 1", "never"), values)]


def _adapted(feature: DeclaredFeature, values: Values) -> Values:
    if feature.clip:
        low, high = feature.clip
        values = np.minimum(np.maximum(values, low), high)
    return _TRANSFORMS[feature.transform](values)


def _flattened(bounds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and the position in the pool of each entry of all lists, in order."""
    sizes = bounds[:, 1] - bounds[:, 0]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    index = np.repeat(bounds[:, 0] - starts[:-1], sizes) + np.arange(starts[-1])
    return np.repeat(np.arange(len(bounds)), sizes), index


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of splitmix64 (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
