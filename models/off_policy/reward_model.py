"""Predicts the reward of each item by cross-fitting: no row is predicted by a model that was trained on it.

Whole clusters are assigned to folds, and the model for a fold is trained on the other folds. The standard error of a
doubly robust estimate by its influence values is valid only then (Chernozhukov et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from feedrank.models.off_policy.log import BanditLog, Clusters, Codes, Floats, SlateLog, groups
from feedrank.models.off_policy.policies import SlatePolicy

_LIGHTGBM: dict[str, Any] = {
    "num_leaves": 15,
    "min_data_in_leaf": 50,
    "learning_rate": 0.05,
    "lambda_l2": 5.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class RewardModel:
    """Holds the settings of the reward model. Raises ValueError for impossible ones."""

    kind: Literal["rates", "logistic", "lightgbm"] | None = None
    """None: logistic if the log has contexts and 0/1 rewards, rates otherwise."""
    folds: int = 5
    strength: float = 1.0
    """For rates: the number of rows that a cell's expectation counts as. It is low because shrinkage biases the model,
    and the direct method's interval doesn't include that bias."""
    penalty: float = 1.0
    """For logistic: the L2 penalty, the weight of the squared coefficients."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(
                f"{self.folds} folds; expected 2 or more, so that no row is predicted by a model trained on it"
            )
        if not self.strength > 0 or not self.penalty > 0:
            raise ValueError(f"smoothing is {self.strength} and l2_penalty {self.penalty}; expected both above 0")


def predict(log: BanditLog, items: int, model: RewardModel | None = None, *, seed: int) -> Floats:
    """Predict (N, items): the mean reward of each item in each row's context and position, by cross-fitting.

    A million numbers take 8 MB. Raises ValueError if the log has fewer clusters than folds, or for a logistic model of
    rewards other than 0 and 1.
    """
    model = model or RewardModel()
    fold = folds(log.cluster, len(log), model.folds, seed)
    binary = bool(np.isin(log.reward, (0, 1)).all())
    kind = model.kind or ("logistic" if log.context is not None and binary else "rates")
    if kind == "rates":
        tables = rates(log.action, log.position, log.reward, fold, model.folds, items, model.strength)
        return tables[fold, log.position]
    if kind == "logistic" and not binary:
        raise ValueError("the log has rewards other than 0 and 1; logistic expects these, so use lightgbm or rates")
    out = np.empty((len(log), items))
    for held_out in range(model.folds):
        train_rows, test_rows = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        if len(np.unique(log.reward[train_rows])) < 2:
            out[test_rows] = log.reward[train_rows].mean()
        elif kind == "logistic":
            out[test_rows] = _logistic(log, items, train_rows, test_rows, model.penalty)
        else:
            out[test_rows] = _lightgbm(log, items, train_rows, test_rows, binary, seed)
    return out


def predict_slates(
    log: SlateLog, policy: SlatePolicy, rewards: Floats, model: RewardModel | None = None, *, seed: int
) -> Floats:
    """Predict (R, K, A): the reward from position k on under the candidate if an item is at k, with smoothed rates.

    rewards: (R, K) position-weighted. The model is fitted from the last position up, on the reward at k plus the
    candidate's expected reward from k + 1 on (Kiyohara et al. 2022). It ignores the items above k; the estimate stays
    unbiased. Raises ValueError if the policy has no `conditional` probabilities, or for a model kind other than rates.
    """
    model = model or RewardModel()
    if model.kind not in (None, "rates"):
        raise ValueError(f"the reward model of slates is {model.kind!r}; expected rates, the only kind there is")
    if policy.conditional is None:
        raise ValueError(
            "cascade-DR needs the probability of every item at every position: give the policy `conditional`"
        )
    slates, positions = log.actions.shape
    fold = folds(log.cluster, slates, model.folds, seed)
    out = np.zeros((slates, positions, policy.conditional.shape[2]))
    future_reward = np.zeros(slates)
    for k in range(positions - 1, -1, -1):
        rows = np.flatnonzero(log.shown[:, k])
        if not len(rows):
            continue
        target, position = rewards[rows, k] + future_reward[rows], np.zeros(len(rows), np.int32)
        tables = rates(log.actions[rows, k], position, target, fold[rows], model.folds, out.shape[2], model.strength)
        out[rows, k] = tables[fold[rows], 0]
        future_reward = (policy.conditional[:, k] * out[:, k]).sum(axis=1)
    return out


def folds(cluster: Clusters | None, rows: int, count: int, seed: int) -> Codes:
    """Assign (N,) folds to rows, from 0; a cluster is in one fold. Raises ValueError for fewer clusters than folds."""
    codes, units = groups(cluster, rows)
    if units < count:
        raise ValueError(f"found {units} clusters for {count} folds; log more clusters or use fewer folds")
    fold: Codes = (np.random.default_rng(seed).permutation(units) % count)[codes]
    return fold


def rates(
    action: np.ndarray, position: np.ndarray, reward: Floats, fold: Codes, count: int, items: int, strength: float
) -> Floats:
    """Compute (n_folds, P, items) mean rewards of an item at a position, from all folds but that one.

    A cell is shrunk toward the item's rate plus the position's offset, and an item toward the overall rate; either
    counts as `smoothing` rows (additive smoothing, Lidstone 1920).
    """
    positions = int(position.max()) + 1
    cell = (fold * positions + position) * items + action
    shape = (count, positions, items)
    rows = np.bincount(cell, minlength=count * positions * items).reshape(shape).astype(np.float64)
    sums = np.bincount(cell, weights=reward, minlength=count * positions * items).reshape(shape)
    rows, sums = rows.sum(axis=0) - rows, sums.sum(axis=0) - sums
    overall = sums.sum(axis=(1, 2), keepdims=True) / np.maximum(rows.sum(axis=(1, 2), keepdims=True), 1)
    item_rows, position_rows = rows.sum(axis=1, keepdims=True), rows.sum(axis=2, keepdims=True)
    item_rate = (sums.sum(axis=1, keepdims=True) + strength * overall) / (item_rows + strength)
    position_rate = (sums.sum(axis=2, keepdims=True) + strength * overall) / (position_rows + strength)
    expected = np.clip(item_rate + position_rate - overall, reward.min(), reward.max())
    smoothed: Floats = (sums + strength * expected) / (rows + strength)
    return smoothed


def _logistic(log: BanditLog, items: int, rest: Codes, rows: Codes, penalty: float) -> Floats:
    """(rows, items) predictions of a logistic regression on item, position and context."""
    positions = int(log.position.max()) + 1
    context = np.empty((len(log), 0)) if log.context is None else log.context
    middle, scale = context[rest].mean(axis=0), context[rest].std(axis=0)
    context = (context - middle) / np.where(scale > 0, scale, 1.0)

    def one_hot(codes: np.ndarray, width: int) -> sparse.csr_matrix:
        return sparse.csr_matrix((np.ones(len(codes)), codes, np.arange(len(codes) + 1)), shape=(len(codes), width))

    columns = (
        one_hot(log.action[rest], items),
        one_hot(log.position[rest], positions),
        sparse.csr_matrix(context[rest]),
    )
    fitted = LogisticRegression(C=1 / penalty, max_iter=500).fit(sparse.hstack(columns, format="csr"), log.reward[rest])
    beta = fitted.coef_[0]
    row = beta[items : items + positions][log.position[rows]] + context[rows] @ beta[items + positions :]
    odds: Floats = 1 / (1 + np.exp(-np.clip(row[:, None] + beta[:items] + fitted.intercept_, -500, 500)))
    return odds


def _lightgbm(log: BanditLog, items: int, rest: Codes, rows: Codes, binary: bool, seed: int) -> Floats:
    """(rows, items) predictions of LightGBM trees on item, position and context."""
    context = np.empty((len(log), 0)) if log.context is None else log.context
    columns = np.column_stack((log.action, log.position, context))
    parameters = _LIGHTGBM | {"objective": "binary" if binary else "regression", "seed": seed}
    data = lgb.Dataset(columns[rest], log.reward[rest], categorical_feature=[0, 1], params={"verbosity": -1})
    booster = lgb.train(parameters, data, _ROUNDS)
    out = np.empty((len(rows), items))
    test_columns = columns[rows]
    for item in range(items):
        test_columns[:, 0] = item
        out[:, item] = booster.predict(test_columns, num_threads=1)
    return out
