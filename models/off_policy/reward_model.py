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

from feedrank.models.off_policy.log import BanditLog, Clusters, Codes, Floats, SlateLog, cluster_codes
from feedrank.models.off_policy.policies import SlatePolicy

_LIGHTGBM_PARAMETERS: dict[str, Any] = {
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
class RewardModelSettings:
    """Holds the settings of the reward model. Raises ValueError for impossible ones."""

    kind: Literal["rates", "logistic", "lightgbm"] | None = None
    """None: logistic if the log has contexts and 0/1 rewards, rates otherwise."""
    folds: int = 5
    smoothing: float = 1.0
    """For rates: the number of rows that a cell's expectation counts as. It is low because shrinkage biases the model,
    and the direct method's interval doesn't include that bias."""
    l2_penalty: float = 1.0
    """For logistic: the L2 penalty, the weight of the squared coefficients."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(
                f"{self.folds} folds; expected 2 or more, so that no row is predicted by a model trained on it"
            )
        if not self.smoothing > 0 or not self.l2_penalty > 0:
            raise ValueError(f"smoothing is {self.smoothing} and l2_penalty {self.l2_penalty}; expected both above 0")


def predict_rewards(log: BanditLog, items: int, settings: RewardModelSettings | None = None, *, seed: int) -> Floats:
    """Predict (N, items): the mean reward of each item in each row's context and position, by cross-fitting.

    A million numbers take 8 MB. Raises ValueError if the log has fewer clusters than folds, or for a logistic model of
    rewards other than 0 and 1.
    """
    settings = settings or RewardModelSettings()
    fold = assign_folds(log.cluster, len(log), settings.folds, seed)
    binary = bool(np.isin(log.reward, (0, 1)).all())
    kind = settings.kind or ("logistic" if log.context is not None and binary else "rates")
    if kind == "rates":
        tables = smoothed_rates(log.action, log.position, log.reward, fold, settings.folds, items, settings.smoothing)
        return tables[fold, log.position]
    if kind == "logistic" and not binary:
        raise ValueError("the log has rewards other than 0 and 1; logistic expects these, so use lightgbm or rates")
    out = np.empty((len(log), items))
    for held_out in range(settings.folds):
        train_rows, test_rows = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        if len(np.unique(log.reward[train_rows])) < 2:
            out[test_rows] = log.reward[train_rows].mean()
        elif kind == "logistic":
            out[test_rows] = _logistic(log, items, train_rows, test_rows, settings.l2_penalty)
        else:
            out[test_rows] = _lightgbm(log, items, train_rows, test_rows, binary, seed)
    return out


def predict_slate_rewards(
    log: SlateLog, policy: SlatePolicy, rewards: Floats, settings: RewardModelSettings | None = None, *, seed: int
) -> Floats:
    """Predict (R, K, A): the reward from position k on under the candidate if an item is at k, with smoothed rates.

    rewards: (R, K) position-weighted. The model is fitted from the last position up, on the reward at k plus the
    candidate's expected reward from k + 1 on (Kiyohara et al. 2022). It ignores the items above k; the estimate stays
    unbiased. Raises ValueError if the policy has no `conditional` probabilities, or for a model kind other than rates.
    """
    settings = settings or RewardModelSettings()
    if settings.kind not in (None, "rates"):
        raise ValueError(f"the reward model of slates is {settings.kind!r}; expected rates, the only kind there is")
    if policy.conditional is None:
        raise ValueError(
            "cascade-DR needs the probability of every item at every position: give the policy `conditional`"
        )
    slates, positions = log.actions.shape
    fold = assign_folds(log.cluster, slates, settings.folds, seed)
    out = np.zeros((slates, positions, policy.conditional.shape[2]))
    future_reward = np.zeros(slates)
    for k in range(positions - 1, -1, -1):
        rows = np.flatnonzero(log.has_item[:, k])
        if not len(rows):
            continue
        target, position = rewards[rows, k] + future_reward[rows], np.zeros(len(rows), np.int32)
        tables = smoothed_rates(
            log.actions[rows, k], position, target, fold[rows], settings.folds, out.shape[2], settings.smoothing
        )
        out[rows, k] = tables[fold[rows], 0]
        future_reward = (policy.conditional[:, k] * out[:, k]).sum(axis=1)
    return out


def assign_folds(cluster: Clusters | None, rows: int, n_folds: int, seed: int) -> Codes:
    """Assign (N,) folds to rows, from 0; a cluster is in one fold. Raises ValueError for fewer clusters than folds."""
    codes, units = cluster_codes(cluster, rows)
    if units < n_folds:
        raise ValueError(f"found {units} clusters for {n_folds} folds; log more clusters or use fewer folds")
    fold: Codes = (np.random.default_rng(seed).permutation(units) % n_folds)[codes]
    return fold


def smoothed_rates(
    action: np.ndarray, position: np.ndarray, reward: Floats, fold: Codes, n_folds: int, items: int, smoothing: float
) -> Floats:
    """Compute (n_folds, P, items) mean rewards of an item at a position, from all folds but that one.

    A cell is shrunk toward the item's rate plus the position's offset, and an item toward the overall rate; either
    counts as `smoothing` rows (additive smoothing, Lidstone 1920).
    """
    positions = int(position.max()) + 1
    cell = (fold * positions + position) * items + action
    shape = (n_folds, positions, items)
    rows = np.bincount(cell, minlength=n_folds * positions * items).reshape(shape).astype(np.float64)
    sums = np.bincount(cell, weights=reward, minlength=n_folds * positions * items).reshape(shape)
    rows, sums = rows.sum(axis=0) - rows, sums.sum(axis=0) - sums
    overall = sums.sum(axis=(1, 2), keepdims=True) / np.maximum(rows.sum(axis=(1, 2), keepdims=True), 1)
    item_rows, position_rows = rows.sum(axis=1, keepdims=True), rows.sum(axis=2, keepdims=True)
    item_rate = (sums.sum(axis=1, keepdims=True) + smoothing * overall) / (item_rows + smoothing)
    position_rate = (sums.sum(axis=2, keepdims=True) + smoothing * overall) / (position_rows + smoothing)
    expected = np.clip(item_rate + position_rate - overall, reward.min(), reward.max())
    smoothed: Floats = (sums + smoothing * expected) / (rows + smoothing)
    return smoothed


def _logistic(log: BanditLog, items: int, train_rows: Codes, test_rows: Codes, penalty: float) -> Floats:
    """(rows, items) predictions of a logistic regression on item, position and context."""
    positions = int(log.position.max()) + 1
    context = np.empty((len(log), 0)) if log.context is None else log.context
    middle, scale = context[train_rows].mean(axis=0), context[train_rows].std(axis=0)
    context = (context - middle) / np.where(scale > 0, scale, 1.0)

    def one_hot(codes: np.ndarray, width: int) -> sparse.csr_matrix:
        return sparse.csr_matrix((np.ones(len(codes)), codes, np.arange(len(codes) + 1)), shape=(len(codes), width))

    columns = (
        one_hot(log.action[train_rows], items),
        one_hot(log.position[train_rows], positions),
        sparse.csr_matrix(context[train_rows]),
    )
    fitted = LogisticRegression(C=1 / penalty, max_iter=500).fit(
        sparse.hstack(columns, format="csr"), log.reward[train_rows]
    )
    beta = fitted.coef_[0]
    row = beta[items : items + positions][log.position[test_rows]] + context[test_rows] @ beta[items + positions :]
    odds: Floats = 1 / (1 + np.exp(-np.clip(row[:, None] + beta[:items] + fitted.intercept_, -500, 500)))
    return odds


def _lightgbm(log: BanditLog, items: int, train_rows: Codes, test_rows: Codes, binary: bool, seed: int) -> Floats:
    """(rows, items) predictions of LightGBM trees on item, position and context."""
    context = np.empty((len(log), 0)) if log.context is None else log.context
    columns = np.column_stack((log.action, log.position, context))
    parameters = _LIGHTGBM_PARAMETERS | {"objective": "binary" if binary else "regression", "seed": seed}
    data = lgb.Dataset(
        columns[train_rows], log.reward[train_rows], categorical_feature=[0, 1], params={"verbosity": -1}
    )
    booster = lgb.train(parameters, data, _ROUNDS)
    out = np.empty((len(test_rows), items))
    test_columns = columns[test_rows]
    for item in range(items):
        test_columns[:, 0] = item
        out[:, item] = booster.predict(test_columns, num_threads=1)
    return out
