"""How a candidate stands to what its person touched: by vectors, by tables, by categories, by statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.types import Batch, Matrix, Offsets, Rows, Scores, Vector
from features.compiled import compiled, compiled_sums
from features.items import Table, VectorPair

TOP = 5
"""How many of the most similar touches are averaged."""


def vector_scores(pair: VectorPair, batch: Batch, decays: tuple[float, ...]) -> Matrix:
    """(N, len(decays) + 3) cosines between candidates and what their person touched lately.

    One column a decay (against the decayed sum of the touches' vectors), then the latest touch alone, the highest over
    all touches, and the mean of the five highest. NaN where the person has touched nothing; a touch without a vector
    counts as 0.
    """
    out = np.full((len(batch.rows), len(decays) + 3), np.nan, np.float32)
    _vector_scores(pair.sources, pair.targets, batch.rows, batch.offsets, batch.history, np.array(decays), out)
    return out


def table_scores(table: Table, batch: Batch, decays: tuple[float, ...], depths: tuple[int, ...]) -> Matrix:
    """(N, len(decays)) sums of table[touch, candidate] x decay^age over the latest touches, `depth` of them each.

    NaN where the person has touched nothing.
    """
    out = np.full((len(batch.rows), len(decays)), np.nan, np.float32)
    _table_scores(*table, batch.rows, batch.offsets, batch.history, np.array(decays), np.array(depths), out)
    return out


def category_scores(codes: NDArray[np.int32], bounds: Offsets, shares: Vector, batch: Batch, decay: float) -> Matrix:
    """(N, 3) affinity of a person to the candidate's categories.

    Columns: the share of the touches that fall in them (mean over the candidate's categories); the same with touches
    weighted by decay^age; the log of the share over what is usual. shares: (categories,) usual share of each. The
    categories of a touch split its weight evenly. NaN where the person has touched nothing, or the candidate has none.
    """
    out = np.full((len(batch.rows), 3), np.nan, np.float32)
    _category_scores(codes, bounds, shares, batch.rows, batch.offsets, batch.history, decay, out)
    return out


def distances(values: Scores, batch: Batch, decay: float) -> Matrix:
    """(N, 2) a statistic of the candidate, and its distance to the decayed mean of the person's latest touches."""
    out = np.full((len(batch.rows), 2), np.nan, np.float32)
    _distances(values, batch.rows, batch.offsets, batch.history, decay, out)
    return out


@compiled_sums
def _dot(a: Vector, b: Vector) -> np.float32:
    total = np.float32(0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return total


@compiled_sums
def _four_dots(asking: Matrix, asked: int, rows: Matrix, places: Rows, out: Matrix, line: int) -> None:
    """Of one vector with four rows: it is read once, and each sum is added up in the same order as any other.

    Whole matrices and places in them are passed: a view of a row costs more than the sum over it.
    """
    r0, r1, r2, r3 = places[0], places[1], places[2], places[3]
    s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for d in range(asking.shape[1]):
        value = asking[asked, d]
        s0 += value * rows[r0, d]
        s1 += value * rows[r1, d]
        s2 += value * rows[r2, d]
        s3 += value * rows[r3, d]
    out[line, 0], out[line, 1], out[line, 2], out[line, 3] = s0, s1, s2, s3


@compiled
def _vector_scores(
    sources: Matrix, targets: Matrix, rows: Rows, offsets: Offsets, history: Rows,
    decays: NDArray[np.float64], out: Matrix,
) -> None:  # fmt: skip
    n_decays = len(decays)
    profile = np.empty((n_decays, sources.shape[1]), np.float32)
    top, value = np.empty((TOP, 4), np.float32), np.empty(4, np.float32)
    four = np.empty(4, np.int32)
    scores = np.empty((n_decays + history.shape[1], 4), np.float32)
    for request in range(len(offsets) - 1):
        touched = 0
        profile[:] = 0
        while touched < history.shape[1] and history[request, touched] >= 0:
            source = sources[history[request, touched]]
            for k in range(n_decays):
                weight = np.float32(decays[k] ** touched)
                for d in range(len(source)):
                    profile[k, d] += weight * source[d]
            touched += 1
        if touched == 0:
            continue
        for k in range(n_decays):
            length = np.sqrt(_dot(profile[k], profile[k]))
            profile[k] /= length if length > 0 else np.float32(np.nan)
        first, stop = offsets[request], offsets[request + 1]
        for start in range(first, stop, 4):
            for i in range(4):  # the last row stands in where there are fewer than four
                four[i] = max(rows[min(start + i, stop - 1)], 0)
            for k in range(n_decays):
                _four_dots(profile, k, targets, four, scores, k)
            for slot in range(touched):
                _four_dots(sources, history[request, slot], targets, four, scores, n_decays + slot)
            top[:] = -2
            for slot in range(touched):  # the highest of four candidates at a time, without a branch
                for i in range(4):
                    value[i] = scores[n_decays + slot, i]
                for rank in range(TOP):
                    for i in range(4):
                        known, new = top[rank, i], value[i]
                        top[rank, i] = known if known > new else new
                        value[i] = new if known > new else known
            for i in range(min(4, stop - start)):
                place = start + i
                if rows[place] < 0:
                    continue
                for k in range(n_decays + 1):  # the latest touch comes right after the decays
                    out[place, k] = scores[k, i]
                out[place, n_decays + 1] = top[0, i]
                kept = min(touched, TOP)
                total = np.float32(0)
                for rank in range(kept):
                    total += top[rank, i]
                out[place, n_decays + 2] = total / np.float32(kept)


@compiled
def _table_scores(
    bounds: Offsets, columns: Rows, values: Scores, rows: Rows, offsets: Offsets, history: Rows,
    decays: NDArray[np.float64], depths: NDArray[np.int64], out: Matrix,
) -> None:  # fmt: skip
    place_of = np.full(len(bounds) - 1, -1, np.int64)
    weights = np.empty(len(decays), np.float32)
    for request in range(len(offsets) - 1):
        if history[request, 0] < 0:
            continue
        first, stop = offsets[request], offsets[request + 1]
        for place in range(first, stop):
            if rows[place] >= 0:
                place_of[rows[place]] = place
                out[place] = 0
        weights[:] = 1
        for slot in range(min(depths.max(), history.shape[1])):
            touched = history[request, slot]
            if touched < 0:
                break
            for k in range(len(decays)):
                if slot >= depths[k]:
                    weights[k] = 0
            for entry in range(bounds[touched], bounds[touched + 1]):
                place = place_of[columns[entry]]
                if place >= 0:
                    for k in range(len(decays)):
                        out[place, k] += values[entry] * weights[k]
            for k in range(len(decays)):
                weights[k] *= np.float32(decays[k])
        for place in range(first, stop):
            if rows[place] >= 0:
                out[place] = out[place_of[rows[place]]]  # an item may stand in a request twice
        for place in range(first, stop):
            if rows[place] >= 0:
                place_of[rows[place]] = -1


@compiled
def _category_scores(
    codes: NDArray[np.int32], bounds: Offsets, shares: Vector, rows: Rows, offsets: Offsets, history: Rows,
    decay: float, out: Matrix,
) -> None:  # fmt: skip
    plain = np.empty(len(shares), np.float32)
    decayed = np.empty(len(shares), np.float32)
    for request in range(len(offsets) - 1):
        plain[:] = 0
        decayed[:] = 0
        total, total_decayed = np.float32(0), np.float32(0)
        weight = np.float32(1)
        for slot in range(history.shape[1]):
            touched = history[request, slot]
            if touched < 0:
                break
            size = bounds[touched + 1] - bounds[touched]
            for c in range(bounds[touched], bounds[touched + 1]):
                plain[codes[c]] += np.float32(1) / np.float32(size)
                decayed[codes[c]] += weight / np.float32(size)
            total += np.float32(1)
            total_decayed += weight
            weight *= np.float32(decay)
        if total == 0:
            continue
        for place in range(offsets[request], offsets[request + 1]):
            row = rows[place]
            if row < 0 or bounds[row + 1] == bounds[row]:
                continue
            size = np.float32(bounds[row + 1] - bounds[row])
            share, recent, lift = np.float32(0), np.float32(0), np.float32(0)
            for c in range(bounds[row], bounds[row + 1]):
                usual = max(shares[codes[c]], np.float32(1e-6))
                share += plain[codes[c]] / total
                recent += decayed[codes[c]] / total_decayed
                lift += np.log((plain[codes[c]] + 5 * usual) / (total + 5) / usual)
            out[place, 0] = share / size
            out[place, 1] = recent / size
            out[place, 2] = lift / size


@compiled
def _distances(values: Scores, rows: Rows, offsets: Offsets, history: Rows, decay: float, out: Matrix) -> None:
    for request in range(len(offsets) - 1):
        total, weights, weight = np.float32(0), np.float32(0), np.float32(1)
        for slot in range(history.shape[1]):
            touched = history[request, slot]
            if touched < 0:
                break
            if not np.isnan(values[touched]):
                total += weight * values[touched]
                weights += weight
            weight *= np.float32(decay)
        mean = total / weights if weights > 0 else np.float32(np.nan)
        for place in range(offsets[request], offsets[request + 1]):
            if rows[place] >= 0:
                out[place, 0] = values[rows[place]]
                out[place, 1] = values[rows[place]] - mean
