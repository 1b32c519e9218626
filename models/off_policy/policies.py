"""Holds candidate policies: given probabilities, frequencies of the candidate's own log, or a softmax of its scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.models.off_policy.log import BanditLog, Floats, SlateLog


@dataclass(frozen=True, eq=False, slots=True)
class Policy:
    """Gives the probability that each of A items is shown. Raises ValueError if a row is not a distribution."""

    probabilities: Floats
    """(P, A) by position, or (N, A) by row of the log."""
    by_position: bool = True

    def __post_init__(self) -> None:
        if self.probabilities.ndim != 2:
            raise ValueError(
                f"probabilities have shape {self.probabilities.shape}; expected (positions or rows, items)"
            )
        sums = self.probabilities.sum(axis=1)
        if np.any(self.probabilities < 0) or not np.allclose(sums, 1, rtol=0, atol=1e-6):
            worst = float(sums[np.argmax(np.abs(sums - 1))])
            raise ValueError(f"a row sums to {worst:.6g}; expected probabilities >= 0 that sum to 1 in each row")

    @property
    def n_items(self) -> int:
        """A: the number of items."""
        return int(self.probabilities.shape[1])

    def row_probabilities(self, log: BanditLog) -> Floats:
        """(N, A) the distribution over items for each row of a log. Raises ValueError if policy and log don't fit."""
        if int(log.action.max()) >= self.n_items:
            raise ValueError(f"the log shows item {log.action.max()}, but the policy has items 0 to {self.n_items - 1}")
        if not self.by_position:
            if len(self.probabilities) != len(log):
                raise ValueError(
                    f"the policy has {len(self.probabilities)} rows, the log {len(log)}; expected equal numbers"
                )
            return self.probabilities
        if int(log.position.max()) >= len(self.probabilities):
            raise ValueError(
                f"the log has position {log.position.max()}, but the policy has 0 to {len(self.probabilities) - 1}"
            )
        return self.probabilities[log.position]

    def logged_probabilities(self, log: BanditLog) -> Floats:
        """(N,) the probability of the item that the log shows."""
        return np.take_along_axis(self.row_probabilities(log), log.action[:, None].astype(np.int64), axis=1)[:, 0]


@dataclass(frozen=True, eq=False, slots=True)
class SlatePolicy:
    """Holds a candidate's probabilities for the R slates of a log."""

    logged_probabilities: Floats
    """(R, K) of the logged item at k, given the logged items above it."""
    marginal: Floats | None = None
    """(R, K) of the logged item at k, whatever is above it; only independent IPS needs it."""
    conditional: Floats | None = None
    """(R, K, A) of every item at k, given the logged items above it; only cascade-DR needs it."""

    @classmethod
    def from_scores(cls, scores: Floats, log: SlateLog, temperature: float) -> SlatePolicy:
        """Build the policy that draws items by scores (R, A), as `plackett_luce` does; without marginals."""
        conditional = plackett_luce_conditionals(scores, log.actions, temperature)
        action = np.where(log.has_item, log.actions, 0)[:, :, None].astype(np.int64)
        chosen = np.where(log.has_item, np.take_along_axis(conditional, action, axis=2)[:, :, 0], 1.0)
        return cls(chosen, None, conditional)


def uniform_policy(positions: int, items: int) -> Policy:
    """Build the policy that shows each item with equal probability at each position."""
    return Policy(np.full((positions, items), 1 / items))


def empirical_policy(action: NDArray[np.int32], position: NDArray[np.int32], positions: int, items: int) -> Policy:
    """Build the policy of item frequencies per position, counted from the policy's own log; rewards are not used.

    action, position: (N,) rows of that policy's log. If the policy depends on the context, the result is its average
    over time and contexts: a candidate that draws from the average. Raises ValueError if a position has no row.
    """
    counts = np.zeros((positions, items))
    np.add.at(counts, (position, action), 1)
    rows = counts.sum(axis=1, keepdims=True)
    if not rows.all():
        empty = np.flatnonzero(rows[:, 0] == 0).tolist()
        raise ValueError(f"positions {empty} have no row in the policy's log; expected rows for all {positions}")
    return Policy(counts / rows)


def plackett_luce(scores: Floats, slates: NDArray[np.int32], temperature: float) -> Floats:
    """Compute (R, K) probabilities of a slate's items, each given those above it, in the Plackett-Luce model.

    Items are drawn by e^(score / temperature). scores: (R, A), -inf for items that can't be shown. slates: (R, K)
    items, -1 after the last; the result is 1 there. temperature 0: the best remaining item is shown, and exact ties
    share the probability. Raises ValueError for NaN scores, a negative temperature, or a slate longer than the items
    with a score. Source: Plackett 1975; Luce 1959.
    """
    remaining = _checked_scores(scores, temperature)
    out = np.ones(slates.shape)
    rows = np.arange(len(slates))
    for k in range(slates.shape[1]):
        shown = slates[:, k] >= 0
        item = np.where(shown, slates[:, k], 0)
        out[shown, k] = np.exp(_log_softmax(remaining, temperature)[rows, item])[shown]
        remaining[rows[shown], item[shown]] = -np.inf
    return out


def plackett_luce_conditionals(scores: Floats, slates: NDArray[np.int32], temperature: float) -> Floats:
    """Compute (R, K, A) probabilities of every item at each position, given the logged items above it.

    See `plackett_luce`. The probabilities at empty positions are 0. A million numbers take 8 MB.
    """
    remaining = _checked_scores(scores, temperature)
    out = np.zeros((*slates.shape, scores.shape[1]))
    rows = np.arange(len(slates))
    for k in range(slates.shape[1]):
        shown = slates[:, k] >= 0
        out[shown, k] = np.exp(_log_softmax(remaining[shown], temperature))
        remaining[rows[shown], slates[shown, k]] = -np.inf
    return out


def plackett_luce_marginals(
    scores: Floats, slates: NDArray[np.int32], temperature: float, *, seed: int, draws: int = 1000
) -> Floats:
    """Estimate (R, K) probabilities of a slate's items at their positions, whatever is above them, from draws.

    There is no closed form below the first position. A share p has no bias, and a standard error of sqrt(p (1 - p) /
    draws). Use it for a candidate, not as a propensity, since a weight divides by that. Draws use the Gumbel trick
    (Yellott 1977). Raises ValueError for a temperature of 0 or less.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}; expected above 0, as at 0 the ranking is deterministic")
    generator = np.random.default_rng(seed)
    scaled = _gap_to_best(_checked_scores(scores, temperature), temperature)
    hits = np.zeros(slates.shape)
    positions = slates.shape[1]
    for _ in range(draws):
        ranked = np.argsort(-(scaled + generator.gumbel(size=scaled.shape)), axis=1)[:, :positions]
        hits[:, : ranked.shape[1]] += ranked == slates[:, : ranked.shape[1]]
    return np.where(slates >= 0, hits / draws, 1.0)


def _checked_scores(scores: Floats, temperature: float) -> Floats:
    """Check scores and temperature, and return a copy of the scores."""
    if not temperature >= 0:
        raise ValueError(f"the temperature is {temperature}; expected 0 or more")
    if np.isnan(scores).any() or np.any(scores == np.inf):
        raise ValueError("found NaN or inf in the scores; expected numbers, or -inf for items that can't be shown")
    return scores.astype(np.float64)


def _log_softmax(scores: Floats, temperature: float) -> Floats:
    shifted = _gap_to_best(scores, temperature)
    log: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log


def _gap_to_best(scores: Floats, temperature: float) -> Floats:
    """(R, A) score less the best score of the row, over the temperature; at temperature 0 it is 0 or -inf."""
    best = scores.max(axis=1, keepdims=True)
    if not np.isfinite(best).all():
        raise ValueError("a slate is longer than there are items with a score above -inf")
    if not temperature:
        return np.where(scores == best, 0.0, -np.inf)
    with np.errstate(over="ignore"):  # an overflow to -inf means probability 0
        gap: Floats = (scores - best) / temperature
    return gap
