"""Ranking metrics are pure functions on a flattened column of labels; they return one value per group.

N rows in final order (best first), group after group; G groups. nDCG reads the label through a gain; all other metrics
are binary: a row is relevant if its label is > 0, or at least the relevance level. A negative label has no gain. A
group without relevant rows scores 0 as in trec_eval, and counts in the mean (LightGBM gives such a group 1). Only AUC
is undefined if a group lacks relevant or other rows: it is NaN there, and `mean` leaves it out and counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.types import Offsets
from feedrank.models.evaluation.gains import Gain, gains

Column = NDArray[Any]
"""(N,) numbers or booleans."""
Values = NDArray[np.float64]
"""(G,) one value per group."""


@dataclass(frozen=True, slots=True)
class Ideal:
    """All judged labels of each group, listed or not, in any order; the ideal DCG comes from them."""

    labels: Column
    """(M,) labels, group after group."""
    offsets: Offsets
    """(G + 1,) bounds of each group's labels."""

    def __post_init__(self) -> None:
        _check_offsets(len(self.labels), self.offsets)


Relevant = NDArray[np.integer[Any]] | Ideal | None
"""All relevant items: (G,) counts (unlisted ones have label 1), an `Ideal`, or None: the listed ones only."""


def order(scores: Column, offsets: Offsets) -> NDArray[np.int64]:
    """Return the (N,) permutation that sorts each group by score, best first; ties keep their order, NaN is last."""
    groups = _check_offsets(len(scores), offsets)
    descending = -scores.astype(np.float64)
    # NaN sorts after every number anyway; the separate NaN key also puts it after -inf.
    return np.lexsort((descending, np.isnan(descending), groups))


def ndcg(
    labels: Column, offsets: Offsets, k: int | None = None, *, relevant: Relevant = None, gain: Gain = "linear"
) -> Values:
    """Compute nDCG: the discounted gain of the first k over the ideal one; the discount is 1 / log2(rank + 1).

    Source: Järvelin & Kekäläinen 2002; gains as in trec_eval or Burges et al. 2005.
    """
    groups, ranks = _ranks(labels, offsets)
    best, best_groups = _ideal_ranking(labels, offsets, relevant)
    bounds = np.searchsorted(best_groups, np.arange(len(offsets)))
    best_ranks = np.arange(len(best)) - bounds[best_groups]
    found = _group_sums(_discounted_gains(labels, ranks, k, gain), groups, offsets)
    return _ratio(found, _group_sums(_discounted_gains(best, best_ranks, k, gain), best_groups, offsets))


def reciprocal_rank(labels: Column, offsets: Offsets, k: int | None = None) -> Values:
    """Return 1 / rank of the first relevant row, 0 if the first k have none. Source: Voorhees 1999."""
    groups, ranks = _ranks(labels, offsets)
    hits = np.flatnonzero((labels > 0) & _within_cutoff(ranks, k))
    values = np.zeros(len(offsets) - 1)
    first_groups, first = np.unique(groups[hits], return_index=True)
    values[first_groups] = 1.0 / (ranks[hits[first]] + 1.0)
    return values


def hit_rate(labels: Column, offsets: Offsets, k: int | None = None) -> Values:
    """Return 1 if any of the first k rows is relevant, otherwise 0 (trec_eval: success)."""
    return (reciprocal_rank(labels, offsets, k) > 0).astype(np.float64)


def recall(labels: Column, offsets: Offsets, k: int | None = None, *, relevant: Relevant = None) -> Values:
    """Return the share of relevant items that are among the first k rows."""
    groups, ranks = _ranks(labels, offsets)
    found = _group_sums((labels > 0) & _within_cutoff(ranks, k), groups, offsets)
    return _ratio(found, _relevant_counts(labels, offsets, relevant))


def average_precision(labels: Column, offsets: Offsets, k: int | None = None, *, relevant: Relevant = None) -> Values:
    """Return the mean precision at the ranks of all relevant items; an item outside the first k counts 0.

    Source: Buckley & Voorhees 2000; divided by the number of all relevant items, as in trec_eval.
    """
    groups, ranks = _ranks(labels, offsets)
    hits = (labels > 0) & _within_cutoff(ranks, k)
    running = np.concatenate(([0], np.cumsum(hits)))
    precision = (running[1:] - running[offsets[groups]]) / (ranks + 1.0)
    return _ratio(_group_sums(precision * hits, groups, offsets), _relevant_counts(labels, offsets, relevant))


def auc(labels: Column, scores: Column, offsets: Offsets) -> Values:
    """Return the probability that a relevant row outscores another row of its group; ties count half.

    It is NaN for groups without both kinds of rows. Rows may be in any order; unlisted items are ignored. A NaN score
    counts as -inf. Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    groups = _check_offsets(len(labels), offsets)
    if len(scores) != len(labels):
        raise ValueError(f"found {len(scores)} scores for {len(labels)} labels: auc needs one score a row")
    values = np.where(np.isnan(scores), -np.inf, scores)
    ascending = np.lexsort((values, groups))
    values, relevant = values[ascending], labels[ascending] > 0
    # All rows of a run of equal scores within a group get the mean rank of the run.
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (groups[1:] != groups[:-1])
    first = np.flatnonzero(new)
    last = np.append(first, len(values))[1:] - 1
    middle = ((first + last) / 2.0)[np.cumsum(new) - 1] - offsets[groups] + 1.0
    positives = _group_sums(relevant, groups, offsets)
    wins = _group_sums(middle * relevant, groups, offsets) - positives * (positives + 1.0) / 2.0
    return _ratio(wins, positives * (np.diff(offsets) - positives), empty=np.nan)


def mean(values: Values) -> tuple[float, int]:
    """Return the mean of the values that are not NaN (NaN if there is none), and the number of NaN values."""
    kept = values[~np.isnan(values)]
    return (float(kept.mean()) if len(kept) else float("nan")), len(values) - len(kept)


@dataclass(frozen=True, slots=True)
class _MetricInputs:
    """The inputs of all measures."""

    labels: Column
    offsets: Offsets
    relevant: Relevant
    scores: Column | None
    gain: Gain
    is_relevant: Column
    """(N,) True for relevant rows: the labels of the binary measures."""
    all_relevant: Relevant
    """The same of all judged items."""


def _auc(x: _MetricInputs, k: int | None) -> Values:
    if x.scores is None:
        raise ValueError("found no scores, but auc needs them to see ties: pass scores=, aligned with the labels")
    return auc(x.is_relevant, x.scores, x.offsets)


_Cutoff = Literal["required", "optional", "none"]
_MEASURES: dict[str, tuple[_Cutoff, Callable[[_MetricInputs, int | None], Values]]] = {
    "ndcg": ("optional", lambda x, k: ndcg(x.labels, x.offsets, k, relevant=x.relevant, gain=x.gain)),
    "hr": ("required", lambda x, k: hit_rate(x.is_relevant, x.offsets, k)),
    "recall": ("required", lambda x, k: recall(x.is_relevant, x.offsets, k, relevant=x.all_relevant)),
    "mrr": ("optional", lambda x, k: reciprocal_rank(x.is_relevant, x.offsets, k)),
    "map": ("optional", lambda x, k: average_precision(x.is_relevant, x.offsets, k, relevant=x.all_relevant)),
    "auc": ("none", _auc),
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure with an optional cut-off; its string is its name, such as `ndcg@10`."""

    name: str
    k: int | None = None
    """Cut-off: only the first k rows count; None: all rows."""

    def __post_init__(self) -> None:
        if self.name not in _MEASURES:
            raise ValueError(f"found no measure {str(self)!r}; there are {_measure_names()}")
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
        """Parse a case-insensitive name such as `ndcg@10` or `mrr`; ValueError lists the available measures."""
        name, at, k = text.strip().lower().partition("@")
        if at and not (k.isascii() and k.isdigit()):
            raise ValueError(f"found no measure {text!r}: {k!r} is no cut-off; there are {_measure_names()}")
        return cls(name, int(k) if at else None)


def evaluate(
    measures: Iterable[Measure | str],
    labels: Column,
    offsets: Offsets,
    *,
    relevant: Relevant = None,
    scores: Column | None = None,
    gain: Gain = "linear",
    level: float | None = None,
) -> dict[str, Values]:
    """Compute measure name -> (G,) values for (N,) labels in final order; only auc needs `scores` (N,).

    level: the lowest label that is relevant to the binary measures; None: any label > 0. It needs an `Ideal` or None as
    `relevant`, since counts do not tell labels.
    """
    is_relevant, all_relevant = _at_level(labels, level), relevant
    if isinstance(relevant, Ideal):
        all_relevant = Ideal(_at_level(relevant.labels, level), relevant.offsets)
    elif relevant is not None and level is not None:
        raise ValueError("found counts of relevant items with a relevance level; pass the labels as an Ideal instead")
    judged = _MetricInputs(labels, offsets, relevant, scores, gain, is_relevant, all_relevant)
    parsed = [Measure.parse(measure) if isinstance(measure, str) else measure for measure in measures]
    return {str(measure): _MEASURES[measure.name][1](judged, measure.k) for measure in parsed}


def _at_level(labels: Column, level: float | None) -> Column:
    if level is not None and not level > 0:
        raise ValueError(f"the relevance level is {level:g}; expected above 0, as unjudged items have label 0")
    relevant: Column = labels > 0 if level is None else labels >= level
    return relevant


def _measure_names() -> str:
    suffix = {"required": "@k", "optional": "[@k]", "none": ""}
    return ", ".join(name + suffix[cutoff] for name, (cutoff, _) in _MEASURES.items())


def _check_offsets(rows: int, offsets: Offsets) -> NDArray[np.int64]:
    """Return (N,) the group of each row; ValueError if the offsets don't span the rows."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != rows or np.any(np.diff(offsets) < 0):
        ends = f"from {offsets[0]} to {offsets[-1]}" if len(offsets) else "without bounds"
        raise ValueError(f"found offsets {ends}; expected them to rise from 0 to the number of rows, {rows}")
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _ranks(labels: Column, offsets: Offsets) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the group of each row and its rank in the group, from 0."""
    groups = _check_offsets(len(labels), offsets)
    return groups, np.arange(len(labels)) - offsets[groups]


def _within_cutoff(ranks: NDArray[np.int64], k: int | None) -> NDArray[np.bool_]:
    if k is not None and k < 1:
        raise ValueError(f"the cut-off is {k}; it must be 1 or more, or None for all")
    return np.ones(len(ranks), bool) if k is None else ranks < k


def _group_sums(column: Column, groups: NDArray[np.int64], offsets: Offsets) -> Values:
    # np.add.reduceat would give an empty group the first value of its neighbour.
    sums: Values = np.bincount(groups, weights=column, minlength=len(offsets) - 1).astype(np.float64)
    return sums


def _ratio(numerator: Values, denominator: Values, empty: float = 0.0) -> Values:
    out: Values = np.full(len(numerator), empty)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def _discounted_gains(labels: Column, ranks: NDArray[np.int64], k: int | None, gain: Gain) -> Values:
    counted = np.where(_within_cutoff(ranks, k), labels, 0)
    discounted: Values = gains(counted, gain) / np.log2(ranks + 2.0)
    return discounted


def _relevant_counts(labels: Column, offsets: Offsets, relevant: Relevant) -> Values:
    """Return (G,) the number of all relevant items; ValueError if it is smaller than the number of listed ones."""
    listed = _group_sums(labels > 0, _check_offsets(len(labels), offsets), offsets)
    if relevant is None:
        return listed
    if isinstance(relevant, Ideal):
        total = _group_sums(
            relevant.labels > 0, _check_offsets(len(relevant.labels), relevant.offsets), relevant.offsets
        )
    else:
        total = relevant.astype(np.float64)
    if total.shape != listed.shape:
        raise ValueError(f"relevant is for {len(total)} groups, but the offsets bound {len(listed)}")
    if (short := np.flatnonzero(total < listed)).size:
        g = int(short[0])
        raise ValueError(
            f"group {g} lists {listed[g]:.0f} relevant rows but relevant says {total[g]:.0f} in all; "
            "it must include the listed ones, and no item may be listed twice"
        )
    return total


def _ideal_ranking(labels: Column, offsets: Offsets, relevant: Relevant) -> tuple[Column, NDArray[np.int64]]:
    """Return all relevant labels, best first in each group, and their groups."""
    total = _relevant_counts(labels, offsets, relevant)
    column, bounds = (relevant.labels, relevant.offsets) if isinstance(relevant, Ideal) else (labels, offsets)
    groups = _check_offsets(len(column), bounds)
    positive = column > 0  # sorting only the few relevant rows is much cheaper
    column, groups = column[positive].astype(np.float64), groups[positive]
    missing = (total - _group_sums(column > 0, groups, offsets)).astype(np.int64)
    column = np.concatenate((column, np.ones(missing.sum())))
    groups = np.concatenate((groups, np.repeat(np.arange(len(missing)), missing)))
    descending = np.lexsort((-column, groups))
    return column[descending], groups[descending]
