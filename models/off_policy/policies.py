"""What a candidate would show: its probabilities, told, counted from its own log, or made of its scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.off_policy.log import BanditLog, Floats, SlateLog


@dataclass(frozen=True, eq=False, slots=True)
class Policy:
    """How likely each of A items is to be shown. Raises ValueError where a row is no distribution."""

    probabilities: Floats
    """(P, A) by position, or (N, A) by row of the log."""
    by_position: bool = True

    def __post_init__(self) -> None:
        if self.probabilities.ndim != 2:
            raise ValueError(
                f"probabilities are of shape {self.probabilities.shape}; expected (positions or rows, items)"
            )
        sums = self.probabilities.sum(axis=1)
        if np.any(self.probabilities < 0) or not np.allclose(sums, 1, rtol=0, atol=1e-6):
            worst = float(sums[np.argmax(np.abs(sums - 1))])
            raise ValueError(f"a policy's probabilities are >= 0 and sum to 1 in each row; a row sums to {worst:.6g}")

    @property
    def items(self) -> int:
        """A: how many items there are."""
        return int(self.probabilities.shape[1])

    def rows(self, log: BanditLog) -> Floats:
        """(N, A) the distribution of each row of a log."""
        if int(log.action.max()) >= self.items:
            raise ValueError(f"the log shows item {log.action.max()}, but the policy knows items 0 to {self.items - 1}")
        if not self.by_position:
            if len(self.probabilities) != len(log):
                raise ValueError(
                    f"the policy has {len(self.probabilities)} rows for a log of {len(log)}; expected as many"
                )
            return self.probabilities
        if int(log.position.max()) >= len(self.probabilities):
            raise ValueError(
                f"the log has position {log.position.max()}, but the policy knows 0 to {len(self.probabilities) - 1}"
            )
        return self.probabilities[log.position]

    def chosen(self, log: BanditLog) -> Floats:
        """(N,) how likely it is to show what the log shows."""
        return np.take_along_axis(self.rows(log), log.action[:, None].astype(np.int64), axis=1)[:, 0]


@dataclass(frozen=True, eq=False, slots=True)
class SlatePolicy:
    """A candidate's probabilities of the R slates of a log."""

    chosen: Floats
    """(R, K) of the item at k, given the logged items above it."""
    marginal: Floats | None = None
    """(R, K) of the item at k, whatever is above it; independent IPS alone needs it."""
    conditional: Floats | None = None
    """(R, K, A) of every item at k, given the logged items above it; cascade-DR alone needs it."""

    @classmethod
    def ranking_by(cls, scores: Floats, log: SlateLog, temperature: float) -> SlatePolicy:
        """Of a candidate that draws items by its scores (R, A), as `plackett_luce` does; without marginals."""
        conditional = plackett_luce_conditionals(scores, log.actions, temperature)
        at = np.where(log.shown, log.actions, 0)[:, :, None].astype(np.int64)
        chosen = np.where(log.shown, np.take_along_axis(conditional, at, axis=2)[:, :, 0], 1.0)
        return cls(chosen, None, conditional)


def uniform(positions: int, items: int) -> Policy:
    """Every item as likely as any other, at each position."""
    return Policy(np.full((positions, items), 1 / items))


def frequencies(action: NDArray[np.int32], position: NDArray[np.int32], positions: int, items: int) -> Policy:
    """What a policy shows at each position on average, counted from its own log; no reward is looked at.

    action, position: (N,) rows of that policy's log. It is the policy's distribution over items where that doesn't
    follow the context, and its average over time and contexts where it does: a candidate that draws from the average.
    Raises ValueError where a position has no row.
    """
    counts = np.zeros((positions, items))
    np.add.at(counts, (position, action), 1)
    rows = counts.sum(axis=1, keepdims=True)
    if not rows.all():
        empty = np.flatnonzero(rows[:, 0] == 0).tolist()
        raise ValueError(f"positions {empty} have no row in the policy's log; expected rows of all {positions}")
    return Policy(counts / rows)


def plackett_luce(scores: Floats, slates: NDArray[np.int32], temperature: float) -> Floats:
    """(R, K) how likely each item of a slate is, given those above it, when items are drawn by e^(score / temperature).

    scores: (R, A), -inf for what can't be shown. slates: (R, K) items, -1 after the last; 1 where there is none.
    temperature 0: the best of what is left is shown, and exact ties share it. Source: Plackett 1975; Luce 1959.
    """
    left = _checked(scores, temperature)
    out = np.ones(slates.shape)
    rows = np.arange(len(slates))
    for k in range(slates.shape[1]):
        shown = slates[:, k] >= 0
        item = np.where(shown, slates[:, k], 0)
        out[shown, k] = np.exp(_log_softmax(left, temperature)[rows, item])[shown]
        left[rows[shown], item[shown]] = -np.inf
    return out


def plackett_luce_conditionals(scores: Floats, slates: NDArray[np.int32], temperature: float) -> Floats:
    """(R, K, A) how likely each item is at each position, given the logged items above it; see `plackett_luce`.

    Rows without an item are 0. A million numbers take 8 MB.
    """
    left = _checked(scores, temperature)
    out = np.zeros((*slates.shape, scores.shape[1]))
    rows = np.arange(len(slates))
    for k in range(slates.shape[1]):
        shown = slates[:, k] >= 0
        out[shown, k] = np.exp(_log_softmax(left[shown], temperature))
        left[rows[shown], slates[shown, k]] = -np.inf
    return out


def plackett_luce_marginals(
    scores: Floats, slates: NDArray[np.int32], temperature: float, *, seed: int, draws: int = 1000
) -> Floats:
    """(R, K) how likely each item of a slate is at its place, whatever is above it: the share of so many draws.

    There is no closed form below the first place. The error of a share p is sqrt(p (1 - p) / draws), and it has no
    bias; use the result for a candidate, not as a propensity, which it would divide by. Draws by the Gumbel trick
    (Yellott 1977). temperature: above 0.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}; expected above 0, or read the marginals off the ranking")
    generator = np.random.default_rng(seed)
    scaled = _below_best(_checked(scores, temperature), temperature)
    hits = np.zeros(slates.shape)
    places = slates.shape[1]
    for _ in range(draws):
        ranked = np.argsort(-(scaled + generator.gumbel(size=scaled.shape)), axis=1)[:, :places]
        hits[:, : ranked.shape[1]] += ranked == slates[:, : ranked.shape[1]]
    return np.where(slates >= 0, hits / draws, 1.0)


def _checked(scores: Floats, temperature: float) -> Floats:
    """A copy."""
    if not temperature >= 0:
        raise ValueError(f"the temperature is {temperature}; expected 0 or more")
    if np.isnan(scores).any() or np.any(scores == np.inf):
        raise ValueError("scores hold NaN or inf; expected numbers, or -inf for what can't be shown")
    return scores.astype(np.float64)


def _log_softmax(left: Floats, temperature: float) -> Floats:
    shifted = _below_best(left, temperature)
    log: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log


def _below_best(left: Floats, temperature: float) -> Floats:
    """(R, A) how far each is below the best of its row, over the temperature: at 0, all below are infinitely far."""
    best = left.max(axis=1, keepdims=True)
    if not np.isfinite(best).all():
        raise ValueError("a slate is longer than there are items with a score above -inf")
    if not temperature:
        return np.where(left == best, 0.0, -np.inf)
    with np.errstate(over="ignore"):  # far below the best is as good as never
        below: Floats = (left - best) / temperature
    return below
