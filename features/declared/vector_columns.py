"""The kind `vector`: lists of numbers, reduced to a fixed number of columns, or the product of two."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.declared_batch import DeclaredBatch, NamedColumns, Values, record
from feedrank.features.declared.forms import forms_of
from feedrank.features.jit import jit

_REDUCTIONS = ("first", "last", "min", "max", "mean", "sum", "norm")
_SENTENCES = {
    "first": "First number of {}.",
    "last": "Last number of {}.",
    "min": "Least number of {}.",
    "max": "Greatest number of {}.",
    "mean": "Mean of the numbers of {}.",
    "sum": "Sum of the numbers of {}.",
    "norm": "Euclidean length of {}.",
}


def vector_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute the reductions of a vector, or its products with another one."""
    if feature.to:
        return _products(batch, feature)
    vector, size = forms_of(feature)
    bounds, pool = batch.hashes(vector)
    missing = f"{feature.from_} has no numbers"
    reduced = np.full((len(_REDUCTIONS), len(bounds)), np.nan)
    _reduce(bounds, pool.view(np.float64), reduced)
    named: NamedColumns = []
    for reduction in feature.reduce:
        name = f"{feature.name}_{reduction}"
        if reduction == "size":
            sentence = f"Number of entries of {feature.from_}."
            named.append((record(name, sentence, "entries", f"there is no {feature.from_}"), batch.numbers(size)))
        elif reduction == "values":
            for index in range(feature.dimensions):
                sentence = f"Number {index + 1} of {feature.from_}."
                found = record(f"{feature.name}_{index}", sentence, "as in the field", f"{missing} at this place")
                named.append((found, _entries(bounds, pool.view(np.float64), index)))
        else:
            sentence = _SENTENCES[reduction].format(feature.from_)
            named.append((record(name, sentence, "as in the field", missing), reduced[_REDUCTIONS.index(reduction)]))
    return named


def _products(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    (one, pool), (other, other_pool) = (batch.hashes(form) for form in forms_of(feature))
    found = np.full((2, len(one)), np.nan)
    _multiply(one, pool.view(np.float64), other, other_pool.view(np.float64), found)
    missing = f"{feature.from_} or {feature.to} has no numbers, or they have different numbers of them"
    columns = {
        "dot": (f"Dot product of {feature.from_} and {feature.to}.", "as in the fields", found[0]),
        "cosine": (f"Cosine of {feature.from_} and {feature.to}.", "cosine, -1 to 1", found[1]),
    }
    return [
        (record(f"{feature.name}_{name}" if len(feature.reduce) > 1 else feature.name, sentence, unit, missing), column)
        for name, (sentence, unit, column) in ((name, columns[name]) for name in feature.reduce)
    ]


def _entries(bounds: NDArray[np.int64], pool: Values, index: int) -> Values:
    places = bounds[:, 0] + index
    has_entry = places < bounds[:, 1]
    if not has_entry.any():
        return np.full(len(bounds), np.nan)
    return np.where(has_entry, pool[np.where(has_entry, places, bounds[has_entry, 0][0])], np.nan)


@jit
def _reduce(bounds: NDArray[np.int64], pool: Values, out: Values) -> None:
    """Compute the reductions of the list of each row, in the order of _REDUCTIONS; an empty list has none."""
    for n in range(len(bounds)):
        start, stop = bounds[n, 0], bounds[n, 1]
        if start == stop:
            continue
        least, greatest, total, squares = pool[start], pool[start], 0.0, 0.0
        for i in range(start, stop):
            least, greatest = min(least, pool[i]), max(greatest, pool[i])
            total += pool[i]
            squares += pool[i] * pool[i]
        out[0, n], out[1, n], out[2, n], out[3, n] = pool[start], pool[stop - 1], least, greatest
        out[4, n], out[5, n], out[6, n] = total / (stop - start), total, np.sqrt(squares)


@jit
def _multiply(one: NDArray[np.int64], pool: Values, other: NDArray[np.int64], other_pool: Values, out: Values) -> None:
    """Compute dot product and cosine of the two lists of each row; a list of zeros has the cosine NaN."""
    for n in range(len(one)):
        size = one[n, 1] - one[n, 0]
        if size == 0 or other[n, 1] - other[n, 0] != size:
            continue
        dot, squares, other_squares = 0.0, 0.0, 0.0
        for i in range(size):
            a, b = pool[one[n, 0] + i], other_pool[other[n, 0] + i]
            dot += a * b
            squares += a * a
            other_squares += b * b
        out[0, n] = dot
        if squares > 0 and other_squares > 0:
            out[1, n] = dot / np.sqrt(squares * other_squares)
