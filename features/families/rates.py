"""The counter families compute popularity, click-through rates (CTR) and custom counters from decayed counts."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.feature import Feature
from feedrank.engine.types import Batch, Matrix, Offsets
from feedrank.features.counter_table import VALUES_PER_HALF_LIFE
from feedrank.features.custom_counters import CounterSpec, half_life_label
from feedrank.features.families.family import Columns, FamilyInputs
from feedrank.features.jit import jit
from feedrank.features.kernel import COUNTER_KINDS
from feedrank.features.state_spec import ENTITIES, StateSpec

SMOOTHING = 10.0
"""Prior of a click-through rate: number of impressions at the average rate."""


def rates(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute counts, smoothed click-through rates and clicks over expected clicks (COEC).

    An impression in a list of n items expects (mean clicks per list) / n clicks, so that short lists have no advantage
    (after COEC: Zhang & Jones, Comparing click logs and editorial labels, 2007).
    """
    spec = inputs.spec
    halves, features = spec.half_lives_h, rate_features(spec.half_lives_h)
    day, week = _nearest_index(halves, 24), _nearest_index(halves, 168)
    out = np.empty((len(batch.rows), len(features)), np.float32)
    _rates(batch.counters, _first_columns(halves), halves.index(min(halves)), halves.index(max(halves)), day, week, out)
    return dict(zip(features, out.T, strict=True))


@cache
def _first_columns(half_lives_h: tuple[float, ...]) -> NDArray[np.int64]:
    """Return (entities, kinds) the column of each counter's first half-life, among those of a state's counters."""
    spec, first = StateSpec(half_lives_h), half_lives_h[0]
    return np.array([[spec.counter_column(entity, kind, first) for kind in COUNTER_KINDS] for entity in ENTITIES])


@cache
def rate_features(half_lives_h: tuple[float, ...]) -> tuple[Feature, ...]:
    """Return the records of the rates for these half-lives, in the order of the columns of `rates`."""
    features = [
        Feature(f"{name}_{half_life_label(half)}", "rates", sentence.format(_decay(half)), unit, "never")
        for half in half_lives_h
        for name, sentence, unit in _RATES
    ]
    shortest, day, week, longest = (
        half_life_label(half)
        for half in (
            min(half_lives_h), half_lives_h[_nearest_index(half_lives_h, 24)],
            half_lives_h[_nearest_index(half_lives_h, 168)], max(half_lives_h),
        )
    )  # fmt: skip
    return (
        *features,
        Feature(
            "popularity_pre_log", "rates",
            f"Interactions with the item from before the log, {_decay(max(half_lives_h))}.", "log(1 + count)", "never",
        ),
        Feature(
            "impressions_trend", "rates",
            f"Impressions of the item with a half-life of {shortest} over those with a half-life of {day}.",
            "ratio", "never",
        ),
        Feature(
            "popularity_trend", "rates",
            f"Feature popularity_{week} minus popularity_{longest}.", "difference of log(1 + count)", "never",
        ),
    )  # fmt: skip


_RATES = (
    ("popularity", "Interactions with the item, {}.", "log(1 + count)"),
    ("impressions", "Impressions of the item, {}.", "log(1 + count)"),
    ("ctr", "Interactions per impression of the item, {}, smoothed towards the rate of all items.",
     "interactions per impression"),
    ("item_clicks_over_expected",
     "Interactions with the item over those expected of its impressions in lists of their length, {}.",
     "ratio, 1 is as expected"),
    ("category_clicks_over_expected",
     "Interactions with the item's categories over those expected of their impressions in lists of their length, {}.",
     "ratio, 1 is as expected"),
)  # fmt: skip
"""Start of the name, sentence and unit of the features of one half-life."""


def custom_counters(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute log(1 + count), or the smoothed rate of a counter with `rate_over`, per custom counter and half-life."""
    columns: Columns = {}
    counters = inputs.spec.counters
    halves = max((len(counter.half_lives_h) for counter in counters), default=0)
    for d, counter in enumerate(counters):
        for half, feature in enumerate(counter_features(counter)):
            first = (d * halves + half) * VALUES_PER_HALF_LIFE
            count, over, all_counts, all_over = (
                batch.custom_counters[:, first + part] for part in range(VALUES_PER_HALF_LIFE)
            )
            value = np.log1p(count)
            if counter.rate_over:
                average = (all_counts + 1) / (all_over + 20)
                value = (count + counter.smoothing * average) / np.maximum(over + counter.smoothing, 1e-9)
            columns[feature] = value.astype(np.float32)
    return columns


@cache
def counter_features(counter: CounterSpec) -> tuple[Feature, ...]:
    """Return the records of a custom counter, one per half-life."""
    counted, over = " or ".join(counter.types), " or ".join(counter.rate_over)
    sentence, unit = f"Number of {counted} events per {counter.entity}", "log(1 + count)"
    if over:
        sentence, unit = f"Number of {counted} events per {over} event, by {counter.entity}", f"{counted} per {over}"
    return tuple(
        Feature(
            f"{counter.name}_{half_life_label(half)}", "custom_counters",
            f"{sentence}, {_decay(half)}{', smoothed towards the overall rate' if over else ''}.", unit,
            "never",
        )
        for half in counter.half_lives_h
    )  # fmt: skip


def dislike_counts(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute how often the item was disliked, and its share of dislikes, smoothed towards that of all items."""
    spec, columns = inputs.spec, Columns()
    halves = spec.half_lives_h
    columns_of = _first_columns(halves)[:, COUNTER_KINDS.index("interactions")]
    of_item, of_all = (int(columns_of[ENTITIES.index(entity)]) for entity in ("item", "all"))
    for half in dict.fromkeys((_nearest_index(halves, 168), halves.index(max(halves)))):
        count, total = np.zeros((2, len(batch.rows)), np.float32)
        if batch.dislikes.size:
            count, total = batch.dislikes[:, half], batch.dislikes[:, len(halves) + half]
        average = total / np.maximum(total + batch.counters[:, of_all + half], 1)
        share = (count + SMOOTHING * average) / (count + batch.counters[:, of_item + half] + SMOOTHING)
        for feature, value in zip(_dislike_features(halves[half]), (np.log1p(count), share), strict=True):
            columns[feature] = value.astype(np.float32)
    return columns


@cache
def _dislike_features(half_life_h: float) -> tuple[Feature, Feature]:
    label, decay = half_life_label(half_life_h), _decay(half_life_h)
    return (
        Feature(f"item_dislikes_{label}", "dislikes", f"Dislikes of the item by any user, {decay}.", "log(1 + count)",
                "never"),
        Feature(f"item_dislike_share_{label}", "dislikes",
                f"Dislikes of the item over its dislikes and interactions, {decay}, smoothed towards that of all.",
                "share, 0 to 1", "never"),
    )  # fmt: skip


def _decay(half_life_h: float) -> str:
    label = half_life_label(half_life_h)
    return "without decay" if label == "all" else f"with a half-life of {label}"


def _nearest_index(half_lives_h: tuple[float, ...], hours: float) -> int:
    """Return the index of the half-life that is nearest to the given hours."""
    return int(np.argmin([abs(half - hours) for half in half_lives_h]))


@jit
def _rates(
    counters: Matrix, first_column: Offsets, shortest: int, longest: int, day: int, week: int, out: Matrix
) -> None:
    """Fill `out`; first_column: (entities, kinds) index of each counter's first half-life, the others follow it."""
    one, smoothing = np.float32(1), np.float32(SMOOTHING)
    halves = (out.shape[1] - 3) // 5
    for n in range(len(counters)):
        row = counters[n]
        for half in range(halves):
            impressions, clicks = row[first_column[0, 0] + half], row[first_column[0, 2] + half]
            all_impressions, all_clicks = row[first_column[2, 0] + half], row[first_column[2, 2] + half]
            average = (all_clicks + one) / (all_impressions + np.float32(20))
            # add-one smoothing: an empty log has no clicks per list
            clicks_per_list = (all_clicks + one) / (row[first_column[2, 1] + half] + one)
            column = half * 5
            out[n, column] = np.log1p(clicks)
            out[n, column + 1] = np.log1p(impressions)
            out[n, column + 2] = (clicks + smoothing * average) / (impressions + smoothing)
            for entity in range(2):
                weight = one if entity == 0 else np.float32(3)
                expected = row[first_column[entity, 1] + half] * clicks_per_list
                out[n, column + 3 + entity] = (row[first_column[entity, 2] + half] + weight) / (expected + weight)
        column = halves * 5
        out[n, column] = np.log1p(row[first_column[0, 3] + longest])
        out[n, column + 1] = (row[first_column[0, 0] + shortest] + np.float32(0.2)) / (
            row[first_column[0, 0] + day] + one
        )
        out[n, column + 2] = out[n, week * 5] - out[n, longest * 5]
