"""The kind `diversity`: how far the value of a candidate is from the others of its request.

All candidates of the request count, in whatever order: an order would say where a logged item was shown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Offsets
from feedrank.features.declared.declaration import DeclaredFeature
from feedrank.features.declared.declared_batch import DeclaredBatch, NamedColumns, Values, record
from feedrank.features.declared.forms import forms_of
from feedrank.features.jit import jit


def diversity_columns(batch: DeclaredBatch, feature: DeclaredFeature) -> NamedColumns:
    """Compute the difference to the median of the candidates, or how frequent the values are among them."""
    (form,) = forms_of(feature)
    found = np.full(len(batch.batch.rows), np.nan)
    if feature.method == "number":
        _differences(batch.numbers(form), batch.batch.offsets, found)
        sentence = f"{feature.from_} minus the median of the candidates of the request."
        return [(record(feature.name, sentence, "as in the field", f"{feature.from_} has no number"), found)]
    bounds, pool = batch.hashes(form)
    _frequencies(bounds, pool, batch.batch.offsets, found)
    sentence = f"Share of the values of {feature.from_} of all candidates that are values of this one."
    return [(record(feature.name, sentence, "share, 0 to 1", f"{feature.from_} has no value"), found)]


@jit
def _differences(values: Values, offsets: Offsets, out: Values) -> None:
    for group in range(len(offsets) - 1):
        known = values[offsets[group] : offsets[group + 1]]
        known = np.sort(known[~np.isnan(known)])
        if not len(known):
            continue
        median = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
        for n in range(offsets[group], offsets[group + 1]):
            out[n] = values[n] - median


@jit
def _frequencies(bounds: NDArray[np.int64], pool: NDArray[np.int64], offsets: Offsets, out: Values) -> None:
    for group in range(len(offsets) - 1):
        first, stop, total = offsets[group], offsets[group + 1], 0
        for n in range(first, stop):
            total += bounds[n, 1] - bounds[n, 0]
        hashes, filled = np.empty(total, np.int64), 0
        for n in range(first, stop):
            for i in range(bounds[n, 0], bounds[n, 1]):
                hashes[filled] = pool[i]
                filled += 1
        hashes = np.sort(hashes)
        for n in range(first, stop):
            shared = 0
            for i in range(bounds[n, 0], bounds[n, 1]):
                shared += np.searchsorted(hashes, pool[i], "right") - np.searchsorted(hashes, pool[i], "left")
            if bounds[n, 1] > bounds[n, 0]:
                out[n] = shared / total
