"""What each item would have earned: reward estimates of rows that the model has not seen (cross-fitting).

Rows are dealt into folds, whole clusters at a time; what is predicted for a fold is learnt from the others. Only so is
the error of a doubly robust estimate what its influence values say (Chernozhukov et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from models.off_policy.log import BanditLog, Clusters, Codes, Floats, SlateLog, groups
from models.off_policy.policies import SlatePolicy

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
    """How rewards are learnt."""

    kind: Literal["rates", "logistic", "lightgbm"] | None = None
    """None: logistic where the log has contexts and 0/1 rewards, rates otherwise."""
    folds: int = 5
    strength: float = 1.0
    """Of rates: how many rows a cell's expectation counts as. Low, because what is shrunk is biased, and the direct
    method's interval knows nothing of that."""
    penalty: float = 1.0
    """Of logistic: the weight of the squared coefficients."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(
                f"{self.folds} folds; expected 2 or more, so that no row is predicted by a model of itself"
            )
        if not self.strength > 0 or not self.penalty > 0:
            raise ValueError(f"strength is {self.strength} and penalty {self.penalty}; expected both above 0")


def predict(log: BanditLog, items: int, model: RewardModel | None = None, *, seed: int) -> Floats:
    """(N, items) the mean reward of each item in each row's context and position. A million numbers take 8 MB."""
    model = model or RewardModel()
    fold = folds(log.cluster, len(log), model.folds, seed)
    binary = bool(np.isin(log.reward, (0, 1)).all())
    kind = model.kind or ("logistic" if log.context is not None and binary else "rates")
    if kind == "rates":
        tables = rates(log.action, log.position, log.reward, fold, model.folds, items, model.strength)
        return tables[fold, log.position]
    if kind == "logistic" and not binary:
        raise ValueError("logistic takes rewards of 0 and 1 alone, and the log has others; use lightgbm or rates")
    out = np.empty((len(log), items))
    for held in range(model.folds):
        rest, rows = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        if len(np.unique(log.reward[rest])) < 2:
            out[rows] = log.reward[rest].mean()
        elif kind == "logistic":
            out[rows] = _logistic(log, items, rest, rows, model.penalty)
        else:
            out[rows] = _lightgbm(log, items, rest, rows, binary, seed)
    return out


def predict_slates(
    log: SlateLog, policy: SlatePolicy, rewards: Floats, model: RewardModel | None = None, *, seed: int
) -> Floats:
    """(R, K, A) what is still to come from position k on under the candidate, if each item stood at k; by rates.

    rewards: (R, K) position-weighted. Learnt from the last position up: the reward at k, and what the candidate then
    expects of k + 1 (Kiyohara et al. 2022). What is above k is not looked at; the estimate stays unbiased.
    Raises ValueError where the policy has no full conditional probabilities, or the model is not of rates.
    """
    model = model or RewardModel()
    if model.kind not in (None, "rates"):
        raise ValueError(f"rewards of slates are learnt as rates; {model.kind!r} was asked for")
    if policy.conditional is None:
        raise ValueError("cascade-DR needs the candidate's probability of every item at every position: conditional")
    slates, places = log.actions.shape
    fold = folds(log.cluster, slates, model.folds, seed)
    out = np.zeros((slates, places, policy.conditional.shape[2]))
    to_come = np.zeros(slates)
    for k in range(places - 1, -1, -1):
        rows = np.flatnonzero(log.shown[:, k])
        if not len(rows):
            continue
        target, place = rewards[rows, k] + to_come[rows], np.zeros(len(rows), np.int32)
        tables = rates(log.actions[rows, k], place, target, fold[rows], model.folds, out.shape[2], model.strength)
        out[rows, k] = tables[fold[rows], 0]
        to_come = (policy.conditional[:, k] * out[:, k]).sum(axis=1)
    return out


def folds(cluster: Clusters | None, rows: int, count: int, seed: int) -> Codes:
    """(N,) the fold of each row, from 0; a cluster is in one fold. Raises ValueError for fewer clusters than folds."""
    codes, units = groups(cluster, rows)
    if units < count:
        raise ValueError(f"{units} clusters can't be dealt into {count} folds; log more clusters or take fewer folds")
    dealt: Codes = (np.random.default_rng(seed).permutation(units) % count)[codes]
    return dealt


def rates(
    action: np.ndarray, position: np.ndarray, reward: Floats, fold: Codes, count: int, items: int, strength: float
) -> Floats:
    """(count, P, items) the mean reward of an item at a position, learnt from all folds but that one.

    A cell is drawn toward the item's rate plus the position's offset, an item toward the rate of all; either counts as
    `strength` rows (additive smoothing, Lidstone 1920).
    """
    places = int(position.max()) + 1
    cell = (fold * places + position) * items + action
    shape = (count, places, items)
    rows = np.bincount(cell, minlength=count * places * items).reshape(shape).astype(np.float64)
    sums = np.bincount(cell, weights=reward, minlength=count * places * items).reshape(shape)
    rows, sums = rows.sum(axis=0) - rows, sums.sum(axis=0) - sums
    overall = sums.sum(axis=(1, 2), keepdims=True) / np.maximum(rows.sum(axis=(1, 2), keepdims=True), 1)
    of_item = (sums.sum(axis=1, keepdims=True) + strength * overall) / (rows.sum(axis=1, keepdims=True) + strength)
    of_place = (sums.sum(axis=2, keepdims=True) + strength * overall) / (rows.sum(axis=2, keepdims=True) + strength)
    expected = np.clip(of_item + of_place - overall, reward.min(), reward.max())
    smoothed: Floats = (sums + strength * expected) / (rows + strength)
    return smoothed


def _logistic(log: BanditLog, items: int, rest: Codes, rows: Codes, penalty: float) -> Floats:
    """(rows, items): log odds of item plus position plus context."""
    places = int(log.position.max()) + 1
    context = np.empty((len(log), 0)) if log.context is None else log.context
    middle, scale = context[rest].mean(axis=0), context[rest].std(axis=0)
    context = (context - middle) / np.where(scale > 0, scale, 1.0)

    def one_hot(codes: np.ndarray, width: int) -> sparse.csr_matrix:
        return sparse.csr_matrix((np.ones(len(codes)), codes, np.arange(len(codes) + 1)), shape=(len(codes), width))

    columns = (one_hot(log.action[rest], items), one_hot(log.position[rest], places), sparse.csr_matrix(context[rest]))
    fitted = LogisticRegression(C=1 / penalty, max_iter=500).fit(sparse.hstack(columns, format="csr"), log.reward[rest])
    beta = fitted.coef_[0]
    row = beta[items : items + places][log.position[rows]] + context[rows] @ beta[items + places :]
    odds: Floats = 1 / (1 + np.exp(-np.clip(row[:, None] + beta[:items] + fitted.intercept_, -500, 500)))
    return odds


def _lightgbm(log: BanditLog, items: int, rest: Codes, rows: Codes, binary: bool, seed: int) -> Floats:
    """(rows, items): trees on item, position and context."""
    context = np.empty((len(log), 0)) if log.context is None else log.context
    columns = np.column_stack((log.action, log.position, context))
    parameters = _LIGHTGBM | {"objective": "binary" if binary else "regression", "seed": seed}
    data = lgb.Dataset(columns[rest], log.reward[rest], categorical_feature=[0, 1], params={"verbosity": -1})
    booster = lgb.train(parameters, data, _ROUNDS)
    out = np.empty((len(rows), items))
    asked = columns[rows]
    for item in range(items):
        asked[:, 0] = item
        out[:, item] = booster.predict(asked, num_threads=1)
    return out
