"""What was shown by chance, and what came of it: logs with the probabilities with which items were chosen."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Clusters = NDArray[np.int64] | NDArray[np.int32] | NDArray[np.str_]
"""One label a row, of any kind that numpy can sort; rows with the same label belong together."""


@dataclass(frozen=True, eq=False, slots=True)
class BanditLog:
    """N rows, each one item at one position. Raises ValueError where columns don't fit or hold impossible numbers."""

    action: NDArray[np.int32]
    """(N,) the item that was shown, from 0."""
    position: NDArray[np.int32]
    """(N,) where, from 0."""
    reward: Floats
    """(N,) such as 1 for a click."""
    propensity: Floats
    """(N,) in (0, 1]: how likely the logging policy was to show this item at this position."""
    context: Floats | None = None
    """(N, F) what was known beforehand."""
    cluster: Clusters | None = None
    """(N,) such as the user; rows of one cluster may depend on each other. None: each row is its own."""

    def __post_init__(self) -> None:
        _shapes(self, (len(self.action),), ("action", "position", "reward", "propensity"))
        _codes("action", self.action, 0)
        _codes("position", self.position, 0)
        _finite("reward", self.reward)
        _probabilities("propensity", self.propensity)

    def __len__(self) -> int:
        return len(self.action)

    def weights(self, chosen: Floats) -> Floats:
        """(N,) how much likelier the candidate was to show what was shown; chosen: (N,) its probabilities of that."""
        _chosen(chosen, self.propensity)
        weights: Floats = chosen / self.propensity
        return weights


@dataclass(frozen=True, eq=False, slots=True)
class SlateLog:
    """R slates of up to K positions. Raises ValueError as `BanditLog` does.

    The length of a slate is taken as given: an estimator of this package doesn't ask whether a candidate would have
    shown more.
    """

    actions: NDArray[np.int32]
    """(R, K) the items from the top, -1 after the last; none twice."""
    rewards: Floats
    """(R, K) 0 where there is no item."""
    conditional: Floats
    """(R, K) in (0, 1]: the probability of this item at k, given the items above it; their product is the slate's.

    What stands where there is no item is not read.
    """
    marginal: Floats | None = None
    """(R, K) in (0, 1]: the probability of this item at k, whatever is above it; independent IPS alone needs it."""
    context: Floats | None = None
    """(R, F) what was known beforehand."""
    cluster: Clusters | None = None
    """(R,) such as the user. None: each slate is its own."""

    def __post_init__(self) -> None:
        if self.actions.ndim != 2:
            raise ValueError(f"actions are of shape {self.actions.shape}; expected (slates, positions)")
        _shapes(self, self.actions.shape, ("actions", "rewards", "conditional", "marginal"))
        _codes("actions", self.actions, -1)
        shown = self.shown
        if np.any(shown[:, 1:] & ~shown[:, :-1]):
            raise ValueError("a slate has an item after an empty position; -1 may only stand after the last item")
        ordered = np.sort(np.where(shown, self.actions, -1 - np.arange(self.actions.shape[1])), axis=1)
        if np.any(ordered[:, 1:] == ordered[:, :-1]):
            raise ValueError("a slate shows an item twice; expected every item once at most")
        _finite("rewards", self.rewards)
        if np.any(self.rewards[~shown]):
            raise ValueError("an empty position has a reward; expected 0 where actions are -1")
        _probabilities("conditional", self.conditional[shown])
        if self.marginal is not None:
            _probabilities("marginal", self.marginal[shown])

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """(R, K) where there is an item."""
        shown: NDArray[np.bool_] = self.actions >= 0
        return shown

    def steps(self, chosen: Floats) -> Floats:
        """(R, K) candidate over log at each position given the items above; 1 where there is no item.

        chosen: (R, K) the candidate's conditional probabilities of what was shown.
        """
        return self._ratio(chosen, self.conditional)

    def marginals(self, chosen: Floats) -> Floats:
        """(R, K) candidate over log at each position, whatever is above it; 1 where there is no item.

        chosen: (R, K) the candidate's marginal probabilities of what was shown. Raises ValueError where the log has no
        marginal propensities.
        """
        if self.marginal is None:
            raise ValueError("the log has no marginal propensities; give them, or use rips or cascade-dr")
        return self._ratio(chosen, self.marginal)

    def _ratio(self, chosen: Floats, propensity: Floats) -> Floats:
        shown = self.shown
        if chosen.shape != shown.shape:
            raise ValueError(f"the candidate's probabilities are of shape {chosen.shape}; expected {shown.shape}")
        _chosen(chosen[shown], propensity[shown])
        ratio = np.ones(shown.shape)
        np.divide(chosen, propensity, out=ratio, where=shown)
        return ratio


def groups(cluster: Clusters | None, rows: int) -> tuple[Codes, int]:
    """(N,) the cluster of each row as a number from 0, and how many clusters there are."""
    if cluster is None:
        return np.arange(rows), rows
    labels, codes = np.unique(cluster, return_inverse=True)
    return codes.astype(np.int64), len(labels)


def _shapes(log: BanditLog | SlateLog, shape: tuple[int, ...], columns: tuple[str, ...]) -> None:
    if not shape[0]:
        raise ValueError("the log is empty; expected at least one row")
    for field in fields(log):
        column = getattr(log, field.name)
        if column is None:
            continue
        expected = shape if field.name in columns else shape[:1]
        if column.shape[: len(expected)] != expected or column.ndim != len(expected) + (field.name == "context"):
            raise ValueError(f"{field.name} is of shape {column.shape}; expected {expected} as the actions are")


def _codes(name: str, column: NDArray[np.int32], least: int) -> None:
    if column.dtype.kind not in "iu":
        raise ValueError(f"{name} is of {column.dtype}; expected whole numbers from {least}")
    if int(column.min()) < least:
        raise ValueError(f"{name} goes down to {column.min()}; expected {least} or more")


def _finite(name: str, column: Floats) -> None:
    if not np.isfinite(column).all():
        raise ValueError(
            f"{name} has {np.sum(~np.isfinite(column))} values that are no number; fill or drop these rows"
        )


def _probabilities(name: str, column: Floats) -> None:
    if bad := int(np.sum(~((column > 0) & (column <= 1)))):
        raise ValueError(
            f"{name}: {bad} of {column.size} are not in (0, 1]; what was shown had a chance: log it as it is drawn"
        )


def _chosen(chosen: Floats, propensity: Floats) -> None:
    if chosen.shape != propensity.shape:
        raise ValueError(
            f"{chosen.shape} probabilities of the candidate for {propensity.shape} rows; expected one a row"
        )
    if not np.all((chosen >= 0) & (chosen <= 1 + 1e-9)):
        raise ValueError("the candidate's probabilities of what was shown are not all in [0, 1]")
