"""Holds logged bandit feedback: shown items, their rewards and their propensities."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Clusters = NDArray[np.int64] | NDArray[np.int32] | NDArray[np.str_]
"""One label per row, of any type that numpy can sort; rows with the same label may depend on each other."""


@dataclass(frozen=True, eq=False, slots=True)
class BanditLog:
    """Holds N rows, each one item at one position. Raises ValueError for columns of wrong shape or value."""

    action: NDArray[np.int32]
    """(N,) the item that was shown, from 0."""
    position: NDArray[np.int32]
    """(N,) its position, from 0."""
    reward: Floats
    """(N,) such as 1 for a click."""
    propensity: Floats
    """(N,) in (0, 1]: the probability that the logging policy shows this item at this position."""
    context: Floats | None = None
    """(N, F) context features, known before the item was shown."""
    cluster: Clusters | None = None
    """(N,) such as the user; rows of one cluster may depend on each other. None: each row is its own cluster."""

    def __post_init__(self) -> None:
        _check_shapes(self, (len(self.action),), ("action", "position", "reward", "propensity"))
        _check_codes("action", self.action, 0)
        _check_codes("position", self.position, 0)
        _check_finite("reward", self.reward)
        _check_propensities("propensity", self.propensity)

    def __len__(self) -> int:
        return len(self.action)

    def importance_weights(self, candidate_probabilities: Floats) -> Floats:
        """(N,) importance weights: the candidate's probability of the shown item over its propensity.

        candidate_probabilities: (N,) of the shown items. Raises ValueError if they don't fit.
        """
        _check_candidate_probabilities(candidate_probabilities, self.propensity)
        weights: Floats = candidate_probabilities / self.propensity
        return weights


@dataclass(frozen=True, eq=False, slots=True)
class SlateLog:
    """Holds R slates of up to K positions. Raises ValueError as `BanditLog` does.

    The length of a slate is taken as given: the estimators assume that a candidate shows as many items.
    """

    actions: NDArray[np.int32]
    """(R, K) the items from the top, -1 after the last; each item once at most."""
    rewards: Floats
    """(R, K) 0 where there is no item."""
    conditional: Floats
    """(R, K) in (0, 1]: the propensity of this item at k, given the items above it; their product is the slate's.

    Values at empty positions are ignored.
    """
    marginal: Floats | None = None
    """(R, K) in (0, 1]: the propensity of this item at k, whatever is above it; only independent IPS needs it."""
    context: Floats | None = None
    """(R, F) context features, known before the slate was shown."""
    cluster: Clusters | None = None
    """(R,) such as the user. None: each slate is its own cluster."""

    def __post_init__(self) -> None:
        if self.actions.ndim != 2:
            raise ValueError(f"actions have shape {self.actions.shape}; expected (slates, positions)")
        _check_shapes(self, self.actions.shape, ("actions", "rewards", "conditional", "marginal"))
        _check_codes("actions", self.actions, -1)
        shown = self.has_item
        if np.any(shown[:, 1:] & ~shown[:, :-1]):
            raise ValueError("a slate has an item after an empty position; -1 may only stand after the last item")
        ordered = np.sort(np.where(shown, self.actions, -1 - np.arange(self.actions.shape[1])), axis=1)
        if np.any(ordered[:, 1:] == ordered[:, :-1]):
            raise ValueError("a slate shows an item twice; expected every item once at most")
        _check_finite("rewards", self.rewards)
        if np.any(self.rewards[~shown]):
            raise ValueError("an empty position has a reward; expected 0 where actions are -1")
        _check_propensities("conditional", self.conditional[shown])
        if self.marginal is not None:
            _check_propensities("marginal", self.marginal[shown])

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def has_item(self) -> NDArray[np.bool_]:
        """(R, K) True where there is an item."""
        shown: NDArray[np.bool_] = self.actions >= 0
        return shown

    def conditional_weights(self, candidate_probabilities: Floats) -> Floats:
        """(R, K) importance weights of each item given the items above it; 1 where there is no item.

        candidate_probabilities: (R, K) the candidate's conditional probabilities of the shown items.
        """
        return self._ratio(candidate_probabilities, self.conditional)

    def marginal_weights(self, candidate_probabilities: Floats) -> Floats:
        """(R, K) importance weights of each item at its position, whatever is above it; 1 where there is no item.

        candidate_probabilities: (R, K) the candidate's marginal probabilities of the shown items. Raises ValueError if
        the log has no marginal propensities.
        """
        if self.marginal is None:
            raise ValueError("the log has no marginal propensities; give them, or use rips or cascade-dr")
        return self._ratio(candidate_probabilities, self.marginal)

    def _ratio(self, candidate_probabilities: Floats, propensity: Floats) -> Floats:
        shown = self.has_item
        if candidate_probabilities.shape != shown.shape:
            raise ValueError(
                f"the candidate's probabilities have shape {candidate_probabilities.shape}; expected {shown.shape}"
            )
        _check_candidate_probabilities(candidate_probabilities[shown], propensity[shown])
        ratio = np.ones(shown.shape)
        np.divide(candidate_probabilities, propensity, out=ratio, where=shown)
        return ratio


def cluster_codes(cluster: Clusters | None, rows: int) -> tuple[Codes, int]:
    """Number the clusters: (N,) the code of each row's cluster, from 0, and the number of clusters."""
    if cluster is None:
        return np.arange(rows), rows
    labels, codes = np.unique(cluster, return_inverse=True)
    return codes.astype(np.int64), len(labels)


def _check_shapes(log: BanditLog | SlateLog, shape: tuple[int, ...], columns: tuple[str, ...]) -> None:
    if not shape[0]:
        raise ValueError("the log is empty; expected at least one row")
    for field in fields(log):
        column = getattr(log, field.name)
        if column is None:
            continue
        expected = shape if field.name in columns else shape[:1]
        if column.shape[: len(expected)] != expected or column.ndim != len(expected) + (field.name == "context"):
            raise ValueError(f"{field.name} has shape {column.shape}; expected {expected}, as the actions have")


def _check_codes(name: str, column: NDArray[np.int32], least: int) -> None:
    if column.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {column.dtype}; expected integers from {least}")
    if int(column.min()) < least:
        raise ValueError(f"{name} has a minimum of {column.min()}; expected {least} or more")


def _check_finite(name: str, column: Floats) -> None:
    if not np.isfinite(column).all():
        raise ValueError(
            f"{name} has {np.sum(~np.isfinite(column))} values that are NaN or infinite; fill or drop these rows"
        )


def _check_propensities(name: str, column: Floats) -> None:
    if bad := int(np.sum(~((column > 0) & (column <= 1)))):
        raise ValueError(
            f"{name}: {bad} of {column.size} are not in (0, 1]; log the probability by which the item was drawn"
        )


def _check_candidate_probabilities(candidate_probabilities: Floats, propensity: Floats) -> None:
    if candidate_probabilities.shape != propensity.shape:
        raise ValueError(
            f"the candidate's probabilities have shape {candidate_probabilities.shape}; expected"
            f" {propensity.shape}, one per row"
        )
    if not np.all((candidate_probabilities >= 0) & (candidate_probabilities <= 1 + 1e-9)):
        raise ValueError(
            "some of the candidate's probabilities of the shown items are outside [0, 1]; check the policy"
        )
