"""The history families compare a candidate with what the user liked and disliked, by scores, categories, statistics."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.feature import Feature
from feedrank.engine.types import UNKNOWN_ROW, Batch, Matrix, Offsets, Rows, Scores, Vector
from feedrank.features.dislikes import MAX_RECENT_DISLIKES
from feedrank.features.families.family import Columns, FamilyInputs
from feedrank.features.families.rates import dislike_counts
from feedrank.features.families.similarity import vector_scores
from feedrank.features.item_model import ItemItemMatrix
from feedrank.features.jit import jit

ITEM_ITEM_DECAYS, ITEM_ITEM_DEPTHS = (1.0, 0.7, 0.93), (1, 15, 40)
RECENT_DECAY = 0.8
"""The decay of families that use a single decay."""
ITEM_ITEM_MATRICES = {
    "transition": "transition weights (the candidate follows within `transition_window` interactions)",
    "transition_3": "transition weights (the candidate follows within 3 interactions)",
    "transition_next": "transition weights (the candidate is the next interaction)",
    "transition_reverse": "reversed transition weights (the candidate comes before)",
    "cooccurrence": "co-occurrence scores (cosine of the sets of users)",
    "ease": "weights of the linear model EASE",
    "slist": "weights of the linear session model SLIST",
}
"""Item-item matrix of the default item model -> what its entries are."""
ITEM_STATS = {
    "interaction_count": ("Number of interactions with the item in the training log", "log(1 + count)", "never"),
    "published": ("Time at which the item was published", "days since 1970", "the item has no field `published`"),
    "mean_value": (
        "Mean value (such as a rating) of the interactions with the item, smoothed towards the mean of all items",
        "value", "no interaction in the training log has a value",
    ),
}  # fmt: skip
"""Item statistic of the default item model -> what it says, its unit, and when it is missing."""
_NO_HISTORY = "the user has no history"
CATEGORY_FEATURES = tuple(
    Feature(f"category_{tag}", "categories", sentence, unit, f"{_NO_HISTORY}, or the item has no category")
    for tag, sentence, unit in (
        ("share", "Share of the user's history in the candidate's categories.", "share, 0 to 1"),
        ("recent",
         f"Share of the user's history in the candidate's categories, with decay {RECENT_DECAY:g} per item.",
         "share, 0 to 1"),
        ("lift", "Share of the user's history in the candidate's categories over their share in the catalogue.",
         "log ratio, 0 is as expected"),
    )
)  # fmt: skip


_NO_DISLIKE = "the user dislikes no item"
DISLIKE_FEATURES = (
    Feature("since_disliked_h", "dislikes", "Time since the user disliked the candidate.", "hours",
            f"the candidate is not among the {MAX_RECENT_DISLIKES} latest items that the user dislikes"),
    Feature("disliked_category_share", "dislikes",
            "Share of the items that the user dislikes in the candidate's categories.", "share, 0 to 1",
            f"{_NO_DISLIKE}, or the candidate has no category"),
    Feature("disliked_text_max", "dislikes",
            "Highest cosine between the candidate and an item that the user dislikes by text vectors.",
            "cosine, -1 to 1", _NO_DISLIKE),
    Feature("disliked_cooccurrence_max", "dislikes",
            "Highest cosine between the candidate and an item that the user dislikes by co-occurrence vectors (items "
            "of the same users).", "cosine, -1 to 1", _NO_DISLIKE),
)  # fmt: skip


def item_item(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute item-item scores: decayed sums of matrix entries over the user's history."""
    columns: Columns = {}
    for name, matrix in inputs.item_model.item_item.items():
        values = item_item_scores(matrix, batch, ITEM_ITEM_DECAYS, ITEM_ITEM_DEPTHS)
        columns |= zip(matrix_features(name), values.T, strict=True)
    return columns


@cache
def matrix_features(name: str) -> tuple[Feature, ...]:
    """Return the records of an item-item matrix, in the order of the columns of `item_item_scores`."""
    entries = ITEM_ITEM_MATRICES.get(name, f"entries of the item-item matrix {name}")
    return tuple(
        Feature(
            f"{name}_i2i_{'latest' if depth == 1 else f'decay{decay:g}'}", "item_item",
            f"Score of the candidate after the user's latest item by {entries}."
            if depth == 1 else
            f"Sum of the candidate's scores after the user's latest {depth} items, with decay {decay:g} per item, by "
            f"{entries}.",
            "sum of matrix entries", _NO_HISTORY,
        )
        for decay, depth in zip(ITEM_ITEM_DECAYS, ITEM_ITEM_DEPTHS, strict=True)
    )  # fmt: skip


def categories(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute the user's affinity to the candidate's categories."""
    catalogue = inputs.item_model.catalogue
    affinity = category_scores(
        catalogue.category_codes, catalogue.category_offsets, inputs.category_shares, batch, RECENT_DECAY
    )
    return dict(zip(CATEGORY_FEATURES, affinity.T, strict=True))


def dislikes(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute how near a candidate is to what the user dislikes, and how often any user disliked it."""
    of_user = np.full((len(DISLIKE_FEATURES), len(batch.rows)), np.nan, np.float32)
    if batch.disliked.size and (batch.disliked[:, 0] != UNKNOWN_ROW).any():
        model, catalogue, groups = inputs.item_model, inputs.item_model.catalogue, batch.request_index
        is_disliked = (batch.disliked[groups] == batch.rows[:, None]) & (batch.rows >= 0)[:, None]
        row, slot = np.nonzero(is_disliked)
        of_user[0, row] = (batch.at[groups[row]] - batch.disliked_at[groups[row], slot]) / 3_600
        against = replace(batch, history=batch.disliked)
        codes, bounds = catalogue.category_codes, catalogue.category_offsets
        of_user[1] = category_scores(codes, bounds, inputs.category_shares, against, RECENT_DECAY)[:, 0]
        for column, view in ((2, "text"), (3, "cooccurrence")):
            if view in model.vectors:
                of_user[column] = vector_scores(model.vectors[view], against, ())[:, 1]
    return dict(zip(DISLIKE_FEATURES, of_user, strict=True)) | dislike_counts(batch, inputs)


def item_stats(batch: Batch, inputs: FamilyInputs) -> Columns:
    """Compute each item statistic and its distance to the mean over the user's history."""
    columns: Columns = {}
    for name, values in inputs.item_model.item_stats.items():
        columns |= zip(statistic_features(name), stat_distances(values, batch, RECENT_DECAY).T, strict=True)
    return columns


@cache
def statistic_features(name: str) -> tuple[Feature, Feature]:
    """Return the records of an item statistic: its value, and its distance to the user's history."""
    sentence, unit, missing = ITEM_STATS.get(name, (f"Item statistic {name}", name, f"the item has no {name}"))
    also = "" if missing == "never" else f", or {missing}"
    distance = (
        f"Item statistic {name} of the candidate minus its mean over the user's history (recent items weigh more)."
    )
    return (
        Feature(name, "item_stats", f"{sentence}.", unit, missing),
        Feature(f"{name}_distance", "item_stats", distance, f"difference of {unit}", f"{_NO_HISTORY}{also}"),
    )


def item_item_scores(
    matrix: ItemItemMatrix, batch: Batch, decays: tuple[float, ...], depths: tuple[int, ...]
) -> Matrix:
    """Compute (N, len(decays)) sums of matrix[history item, candidate] x decay^age.

    Column k uses the latest `depths[k]` items of the history; age counts items. NaN if the history is empty.
    """
    out = np.full((len(batch.rows), len(decays)), np.nan, np.float32)
    _item_item_scores(*matrix, batch.rows, batch.offsets, batch.history, np.array(decays), np.array(depths), out)
    return out


def category_scores(codes: NDArray[np.int32], bounds: Offsets, shares: Vector, batch: Batch, decay: float) -> Matrix:
    """Compute the (N, 3) affinity of a user to the candidate's categories.

    Columns: the share of the history in the category (mean over the candidate's categories); the same with history
    items weighted by decay^age; the smoothed log lift of the share over the expected share. shares: (categories,)
    expected shares. The weight of a history item is split evenly between its categories. NaN if the history is empty or
    the candidate has no category.
    """
    out = np.full((len(batch.rows), 3), np.nan, np.float32)
    _category_scores(codes, bounds, shares, batch.rows, batch.offsets, batch.history, decay, out)
    return out


def stat_distances(values: Scores, batch: Batch, decay: float) -> Matrix:
    """Compute (N, 2): a candidate's statistic, and its signed distance to the decayed mean over the user's history."""
    out = np.full((len(batch.rows), 2), np.nan, np.float32)
    _stat_distances(values, batch.rows, batch.offsets, batch.history, decay, out)
    return out


@jit
def _item_item_scores(
    bounds: Offsets, columns: Rows, values: Scores, rows: Rows, offsets: Offsets, history: Rows,
    decays: NDArray[np.float64], depths: NDArray[np.int64], out: Matrix,
) -> None:  # fmt: skip
    candidate_of = np.full(len(bounds) - 1, -1, np.int64)
    weights = np.empty(len(decays), np.float32)
    for request in range(len(offsets) - 1):
        if history[request, 0] < 0:
            continue
        first, stop = offsets[request], offsets[request + 1]
        for candidate in range(first, stop):
            if rows[candidate] >= 0:
                candidate_of[rows[candidate]] = candidate
                out[candidate] = 0
        weights[:] = 1
        for slot in range(min(depths.max(), history.shape[1])):
            item = history[request, slot]
            if item < 0:
                break
            for k in range(len(decays)):
                if slot >= depths[k]:
                    weights[k] = 0
            for entry in range(bounds[item], bounds[item + 1]):
                candidate = candidate_of[columns[entry]]
                if candidate >= 0:
                    for k in range(len(decays)):
                        out[candidate, k] += values[entry] * weights[k]
            for k in range(len(decays)):
                weights[k] *= np.float32(decays[k])
        for candidate in range(first, stop):
            if rows[candidate] >= 0:
                out[candidate] = out[candidate_of[rows[candidate]]]  # a request may hold an item twice
        for candidate in range(first, stop):
            if rows[candidate] >= 0:
                candidate_of[rows[candidate]] = -1


@jit
def _category_scores(
    codes: NDArray[np.int32], bounds: Offsets, shares: Vector, rows: Rows, offsets: Offsets, history: Rows,
    decay: float, out: Matrix,
) -> None:  # fmt: skip
    plain = np.zeros(len(shares), np.float32)
    decayed = np.zeros(len(shares), np.float32)
    for request in range(len(offsets) - 1):
        total, total_decayed = np.float32(0), np.float32(0)
        weight = np.float32(1)
        for slot in range(history.shape[1]):
            item = history[request, slot]
            if item < 0:
                break
            size = bounds[item + 1] - bounds[item]
            for c in range(bounds[item], bounds[item + 1]):
                plain[codes[c]] += np.float32(1) / np.float32(size)
                decayed[codes[c]] += weight / np.float32(size)
            total += np.float32(1)
            total_decayed += weight
            weight *= np.float32(decay)
        if total == 0:
            continue
        for candidate in range(offsets[request], offsets[request + 1]):
            row = rows[candidate]
            if row < 0 or bounds[row + 1] == bounds[row]:
                continue
            size = np.float32(bounds[row + 1] - bounds[row])
            share, recent, lift = np.float32(0), np.float32(0), np.float32(0)
            for c in range(bounds[row], bounds[row + 1]):
                expected = max(shares[codes[c]], np.float32(1e-6))
                share += plain[codes[c]] / total
                recent += decayed[codes[c]] / total_decayed
                lift += np.log((plain[codes[c]] + 5 * expected) / (total + 5) / expected)
            out[candidate, 0] = share / size
            out[candidate, 1] = recent / size
            out[candidate, 2] = lift / size
        for slot in range(history.shape[1]):  # not the whole arrays: there may be many more categories than these
            item = history[request, slot]
            if item < 0:
                break
            for c in range(bounds[item], bounds[item + 1]):
                plain[codes[c]] = 0
                decayed[codes[c]] = 0


@jit
def _stat_distances(values: Scores, rows: Rows, offsets: Offsets, history: Rows, decay: float, out: Matrix) -> None:
    for request in range(len(offsets) - 1):
        total, weights, weight = np.float32(0), np.float32(0), np.float32(1)
        for slot in range(history.shape[1]):
            item = history[request, slot]
            if item < 0:
                break
            if not np.isnan(values[item]):
                total += weight * values[item]
                weights += weight
            weight *= np.float32(decay)
        mean = total / weights if weights > 0 else np.float32(np.nan)
        for candidate in range(offsets[request], offsets[request + 1]):
            if rows[candidate] >= 0:
                out[candidate, 0] = values[rows[candidate]]
                out[candidate, 1] = values[rows[candidate]] - mean
