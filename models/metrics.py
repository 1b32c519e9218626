"""Ranking metrics: pure functions on a flattened column of labels, one value a group.

N rows in final order (best first), group after group; G groups. A row is relevant when its label is > 0; a negative
label gains nothing. A group in which nothing is relevant scores 0, as trec_eval has it, and so it counts in the mean
(LightGBM gives such a group 1). AUC alone is undefined where one of the two kinds is absent: NaN, left out of the mean,
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.types import Offsets

Column = NDArray[Any]
"""(N,) numbers or booleans."""
Values = NDArray[np.float64]
"""(G,) one value a group."""
Gain = Literal["linear", "exponential"]
"""`linear`: the label, as trec_eval; `exponential`: 2^label - 1, as LightGBM."""


@dataclass(frozen=True, slots=True)
class Ideal:
    """The labels of all that was judged in each group, listed or not, in any order."""

    labels: Column
    """(M,) labels, group after group."""
    offsets: Offsets
    """(G + 1,) bounds of each group's labels."""

    def __post_init__(self) -> None:
        _check(len(self.labels), self.offsets)


Relevant = NDArray[np.integer[Any]] | Ideal | None
"""What is relevant in all: (G,) counts (the unlisted are taken as label 1), an `Ideal`, or None: only the listed."""


def order(scores: Column, offsets: Offsets) -> NDArray[np.int64]:
    """(N,) the permutation that puts each group best first; ties keep their order, NaN comes last."""
    groups = _check(len(scores), offsets)
    descending = -scores.astype(np.float64)
    # NaN would sort after every number by itself, but before it in a key of its own it also comes after -inf.
    return np.lexsort((descending, np.isnan(descending), groups))


def ndcg(
    labels: Column, offsets: Offsets, k: int | None = None, *, relevant: Relevant = None, gain: Gain = "linear"
) -> Values:
    """Discounted gain of the first k over the best that could be had; the discount is 1 / log2(rank + 1).

    Source: Järvelin & Kekäläinen 2002; gains as in trec_eval or Burges et al. 2005.
    """
    groups, ranks = _ranks(labels, offsets)
    best, best_groups = _best(labels, offsets, relevant)
    bounds = np.searchsorted(best_groups, np.arange(len(offsets)))
    best_ranks = np.arange(len(best)) - bounds[best_groups]
    found = _sum(_discounted(labels, ranks, k, gain), groups, offsets)
    return _ratio(found, _sum(_discounted(best, best_ranks, k, gain), best_groups, offsets))


def reciprocal_rank(labels: Column, offsets: Offsets, k: int | None = None) -> Values:
    """1 / rank of the first relevant row, 0 where there is none in the first k. Source: Voorhees 1999."""
    groups, ranks = _ranks(labels, offsets)
    hits = np.flatnonzero((labels > 0) & _within(ranks, k))
    values = np.zeros(len(offsets) - 1)
    first_groups, first = np.unique(groups[hits], return_index=True)
    values[first_groups] = 1.0 / (ranks[hits[first]] + 1.0)
    return values


def hit_rate(labels: Column, offsets: Offsets, k: int | None = None) -> Values:
    """1 where one of the first k is relevant, else 0 (trec_eval: success)."""
    return (reciprocal_rank(labels, offsets, k) > 0).astype(np.float64)


def recall(labels: Column, offsets: Offsets, k: int | None = None, *, relevant: Relevant = None) -> Values:
    """The share of what is relevant that is among the first k."""
    groups, ranks = _ranks(labels, offsets)
    found = _sum((labels > 0) & _within(ranks, k), groups, offsets)
    return _ratio(found, _counts(labels, offsets, relevant))


def average_precision(labels: Column, offsets: Offsets, k: int | None = None, *, relevant: Relevant = None) -> Values:
    """The mean, over what is relevant, of the precision at its rank; 0 for what is not in the first k.

    Source: Buckley & Voorhees 2000; divided by all that is relevant, as trec_eval does.
    """
    groups, ranks = _ranks(labels, offsets)
    hits = (labels > 0) & _within(ranks, k)
    running = np.concatenate(([0], np.cumsum(hits)))
    precision = (running[1:] - running[offsets[groups]]) / (ranks + 1.0)
    return _ratio(_sum(precision * hits, groups, offsets), _counts(labels, offsets, relevant))


def auc(labels: Column, scores: Column, offsets: Offsets) -> Values:
    """The chance that a relevant row outscores another row of its group, a tie counting half; NaN without both kinds.

    Rows may be in any order; what is not listed plays no part. A NaN score counts as -inf. Source: Mann & Whitney 1947;
    Hanley & McNeil 1982.
    """
    groups = _check(len(labels), offsets)
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores for {len(labels)} labels: auc needs one score a row")
    values = np.where(np.isnan(scores), -np.inf, scores)
    ascending = np.lexsort((values, groups))
    values, relevant = values[ascending], labels[ascending] > 0
    # A run is a stretch of equal scores within a group; all of its rows get the rank of its middle.
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (groups[1:] != groups[:-1])
    first = np.flatnonzero(new)
    last = np.append(first, len(values))[1:] - 1
    middle = ((first + last) / 2.0)[np.cumsum(new) - 1] - offsets[groups] + 1.0
    positives = _sum(relevant, groups, offsets)
    wins = _sum(middle * relevant, groups, offsets) - positives * (positives + 1.0) / 2.0
    return _ratio(wins, positives * (np.diff(offsets) - positives), empty=np.nan)


def mean(values: Values) -> tuple[float, int]:
    """The mean of the values that are not NaN (NaN if none is), and how many were left out."""
    kept = values[~np.isnan(values)]
    return (float(kept.mean()) if len(kept) else float("nan")), len(values) - len(kept)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the measures read."""

    labels: Column
    offsets: Offsets
    relevant: Relevant
    scores: Column | None
    gain: Gain


def _auc(x: _Judged, k: int | None) -> Values:
    if x.scores is None:
        raise ValueError("auc found no scores and can't see ties without them: pass scores=, aligned with the labels")
    return auc(x.labels, x.scores, x.offsets)


_Cutoff = Literal["required", "optional", "none"]
_MEASURES: dict[str, tuple[_Cutoff, Callable[[_Judged, int | None], Values]]] = {
    "ndcg": ("optional", lambda x, k: ndcg(x.labels, x.offsets, k, relevant=x.relevant, gain=x.gain)),
    "hr": ("required", lambda x, k: hit_rate(x.labels, x.offsets, k)),
    "recall": ("required", lambda x, k: recall(x.labels, x.offsets, k, relevant=x.relevant)),
    "mrr": ("optional", lambda x, k: reciprocal_rank(x.labels, x.offsets, k)),
    "map": ("optional", lambda x, k: average_precision(x.labels, x.offsets, k, relevant=x.relevant)),
    "auc": ("none", _auc),
}


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured, and over how many first rows; its string is its name, such as `ndcg@10`."""

    name: str
    k: int | None = None
    """Only the first k rows count; None: all."""

    def __post_init__(self) -> None:
        if self.name not in _MEASURES:
            raise ValueError(f"no measure is called {str(self)!r}; there are {_known()}")
        cutoff = _MEASURES[self.name][0]
        if self.k is None and cutoff == "required":
            raise ValueError(f"{self.name} needs a cut-off, such as {self.name}@10")
        if self.k is not None and cutoff == "none":
            raise ValueError(f"{self.name} takes no cut-off, but {str(self)!r} has one; write {self.name}")
        if self.k is not None and self.k < 1:
            raise ValueError(f"the cut-off of {str(self)!r} is {self.k}; it must be 1 or more")

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"

    @classmethod
    def parse(cls, text: str) -> Measure:
        """From a name such as `ndcg@10` or `mrr`, in any case; ValueError lists what there is."""
        name, at, k = text.strip().lower().partition("@")
        if at and not (k.isascii() and k.isdigit()):
            raise ValueError(f"no measure is called {text!r}: {k!r} is no cut-off; there are {_known()}")
        return cls(name, int(k) if at else None)


def evaluate(
    measures: Iterable[Measure | str],
    labels: Column,
    offsets: Offsets,
    *,
    relevant: Relevant = None,
    scores: Column | None = None,
    gain: Gain = "linear",
) -> dict[str, Values]:
    """Measure name -> (G,) values, for (N,) labels in final order; `scores` (N,) are needed by auc alone."""
    judged = _Judged(labels, offsets, relevant, scores, gain)
    parsed = [Measure.parse(measure) if isinstance(measure, str) else measure for measure in measures]
    return {str(measure): _MEASURES[measure.name][1](judged, measure.k) for measure in parsed}


def _known() -> str:
    mark = {"required": "@k", "optional": "[@k]", "none": ""}
    return ", ".join(name + mark[cutoff] for name, (cutoff, _) in _MEASURES.items())


def _check(rows: int, offsets: Offsets) -> NDArray[np.int64]:
    """(N,) the group of each row; ValueError where the offsets don't span the rows."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != rows or np.any(np.diff(offsets) < 0):
        ends = f"from {offsets[0]} to {offsets[-1]}" if len(offsets) else "without any bound"
        raise ValueError(f"offsets go {ends}; expected them to rise from 0 to the number of rows, {rows}")
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _ranks(labels: Column, offsets: Offsets) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The group of each row and its rank in there, from 0."""
    groups = _check(len(labels), offsets)
    return groups, np.arange(len(labels)) - offsets[groups]


def _within(ranks: NDArray[np.int64], k: int | None) -> NDArray[np.bool_]:
    if k is not None and k < 1:
        raise ValueError(f"the cut-off is {k}; it must be 1 or more, or None for all")
    return np.ones(len(ranks), bool) if k is None else ranks < k


def _sum(column: Column, groups: NDArray[np.int64], offsets: Offsets) -> Values:
    # np.add.reduceat would give an empty group its neighbour's first value.
    sums: Values = np.bincount(groups, weights=column, minlength=len(offsets) - 1).astype(np.float64)
    return sums


def _ratio(above: Values, below: Values, empty: float = 0.0) -> Values:
    out: Values = np.full(len(above), empty)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _discounted(labels: Column, ranks: NDArray[np.int64], k: int | None, gain: Gain) -> Values:
    if gain not in ("linear", "exponential"):
        raise ValueError(f"the gain is {gain!r}; expected 'linear' or 'exponential'")
    counted = (labels > 0) & _within(ranks, k)
    level = np.where(counted, labels, 0).astype(np.float64)
    gains = level if gain == "linear" else np.exp2(level) - 1.0
    discounted: Values = gains / np.log2(ranks + 2.0)
    return discounted


def _counts(labels: Column, offsets: Offsets, relevant: Relevant) -> Values:
    """(G,) how many are relevant in all; ValueError where that is fewer than are listed."""
    listed = _sum(labels > 0, _check(len(labels), offsets), offsets)
    if relevant is None:
        return listed
    if isinstance(relevant, Ideal):
        total = _sum(relevant.labels > 0, _check(len(relevant.labels), relevant.offsets), relevant.offsets)
    else:
        total = relevant.astype(np.float64)
    if total.shape != listed.shape:
        raise ValueError(f"relevant is for {len(total)} groups, but the offsets bound {len(listed)}")
    if (short := np.flatnonzero(total < listed)).size:
        g = int(short[0])
        raise ValueError(
            f"group {g} lists {listed[g]:.0f} relevant rows but relevant says {total[g]:.0f} in all; "
            "it must count the listed ones too, and no item may be listed twice"
        )
    return total


def _best(labels: Column, offsets: Offsets, relevant: Relevant) -> tuple[Column, NDArray[np.int64]]:
    """All relevant labels, best first in each group, and their groups."""
    total = _counts(labels, offsets, relevant)
    column, bounds = (relevant.labels, relevant.offsets) if isinstance(relevant, Ideal) else (labels, offsets)
    groups = _check(len(column), bounds)
    positive = column > 0  # sorting the few relevant ones is much cheaper than sorting all
    column, groups = column[positive].astype(np.float64), groups[positive]
    missing = (total - _sum(column > 0, groups, offsets)).astype(np.int64)
    column = np.concatenate((column, np.ones(missing.sum())))
    groups = np.concatenate((groups, np.repeat(np.arange(len(missing)), missing)))
    by = np.lexsort((-column, groups))
    return column[by], groups[by]
