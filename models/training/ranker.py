"""The rankers: a LambdaRank model of LightGBM (Burges, From RankNet to LambdaRank to LambdaMART, 2010), or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from feedrank.engine.protocols import Ranker
from feedrank.engine.types import Matrix, Offsets, Scores
from feedrank.features.families.listwise import group_zscore
from feedrank.models.atomic_files import atomic_write
from feedrank.models.evaluation.bootstrap import Difference
from feedrank.models.training.booster_file import check_booster_text
from feedrank.models.training.boosting import fit
from feedrank.models.training.label_gain import gain_of
from feedrank.models.training.position_bias import PositionBias
from feedrank.models.training.query_groups import QueryGroups, check_slices
from feedrank.models.training.ranker_defaults import default_parameters
from feedrank.models.training.recall_comparison import RecallComparison, mean_gain


@dataclass(frozen=True, slots=True)
class LambdaRankSettings:
    """[ranker] Settings of the LightGBM training."""

    rounds: int = 160
    """Maximum number of boosting rounds, with one tree each. Unit: rounds."""
    patience: int = 60
    """Training stops early after this many rounds without a better validation metric. With fewer than 200 validation
    groups nothing stops it, and the best round is pulled towards all rounds, as their metric is noisy. Unit: rounds."""
    refit: bool = True
    """After early stopping, train that many rounds again on training and validation data, which is the latest."""
    ensemble_size: int = 1
    """Number of boosters, trained with different seeds and averaged. Unit: boosters."""
    seed: int = 7
    """Seed of LightGBM's sampling and of `feedrank tune`; each further booster of an ensemble adds 1."""
    threads: int = 0
    """Number of threads in training; 0: all cores. The result does not depend on it. Unit: threads."""
    debias: bool = True
    """Use LightGBM's position debiasing if all training rows have logged positions."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """LightGBM parameters by name, such as {num_leaves = 31}; they override the defaults of feedrank. Three of these
    depend on the data: min_data_in_leaf is a 250th of the rows, from 5 to 80; lambda_l2 a 2,000th of the rows, from 1
    to 10; feature_fraction such that a tree may use 16 features, from 0.4 to 1."""


POSITION_BIAS_FILE = "position-bias.json"


class LambdaRanker:
    """A ranking model of one LightGBM booster, or the mean of several."""

    def __init__(
        self,
        boosters: Sequence[lgb.Booster],
        names: tuple[str, ...],
        fingerprint: str,
        position_bias: PositionBias | None = None,
        learning_curve: Sequence[float] = (),
        recall_gain: Difference | None = None,
    ) -> None:
        """Take trained boosters.

        position_bias: the learnt curve; the scores do not contain it. learning_curve: validation nDCG@10 after each
        round of the first booster. recall_gain: nDCG@10 on the validation groups, ranker minus recall order. Raises
        ValueError without a booster.
        """
        self.recall_gain = recall_gain
        self.position_bias = position_bias
        self.learning_curve = tuple(learning_curve)
        if not boosters:
            raise ValueError("found no booster; a ranker needs at least one")
        self.names = names
        self.fingerprint = fingerprint
        self._boosters = tuple(boosters)

    @classmethod
    def train(
        cls,
        train: Sequence[QueryGroups],
        validation: QueryGroups,
        names: tuple[str, ...],
        fingerprint: str,
        settings: LambdaRankSettings | None = None,
        progress: Callable[[int, float], None] | None = None,
        init_model: LambdaRanker | None = None,
        with_recall_gain: bool = False,
    ) -> LambdaRanker:
        """Train with early stopping on `validation`, which must be neither training nor test data.

        With `settings.refit` the result has learnt from `validation` too, so measure it on the test slice.

        progress: called after each round with (round, validation nDCG@10). init_model: a ranker of the same features,
        whose trees are kept and extended. Positions are used only if every row has one; scores at serving assume the
        same position for all items (LightGBM's position debiasing, 4.1 and later). with_recall_gain: measure the gain
        over recall order, which takes up to 0.1 s a round.

        Raises ValueError if a slice has no positive label, if `init_model` has other features, or if LightGBM fails.
        """
        settings = settings or LambdaRankSettings()
        if init_model is not None and (init_model.names != names or init_model.fingerprint != fingerprint):
            raise ValueError(
                "the initial ranker was trained on other features or other feature settings; train without it"
            )
        check_slices(train, validation)
        boosters: list[lgb.Booster] = []
        curves: list[PositionBias] = []
        comparisons: list[RecallComparison] = []
        learning: list[float] = []

        def on_round(done: int, value: float) -> None:
            if not boosters:
                learning.append(value)
            if progress:
                progress(done, value)

        init_booster = None if init_model is None else init_model._boosters[0]
        for seed_offset in range(settings.ensemble_size):
            parameters = default_parameters(sum(len(part.labels) for part in train), len(names))
            parameters |= {"seed": settings.seed + seed_offset, "num_threads": settings.threads}
            parameters |= dict(settings.parameters)
            try:
                gain = gain_of(parameters)
                compared = RecallComparison.from_features(validation, names, gain) if with_recall_gain else None
                booster, curve = fit(parameters, train, validation, names, settings, on_round, init_booster, compared)
            except lgb.basic.LightGBMError as problem:
                raise ValueError(f"LightGBM refused to train with {parameters}: {problem}") from None
            boosters.append(booster)
            curves += [curve] if curve else []
            comparisons += [compared] if compared else []
        recall_gain = mean_gain(comparisons, settings.seed)
        return cls(boosters, names, fingerprint, PositionBias.mean(curves), learning, recall_gain)

    def score(self, features: Matrix) -> Scores:
        """Return (N,) scores of (N, F) feature rows; raises ValueError for another number of features."""
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise ValueError(
                f"found rows of {features.shape[-1]} features, expected {len(self.names)}; "
                "the ranker was probably trained with another feature list: train again"
            )
        if not len(features):
            return np.empty(0, np.float32)
        total = np.zeros(len(features))
        for booster in self._boosters:
            total += booster.predict(features, num_threads=1 if len(features) < 2_000 else 0)
        return (total / len(self._boosters)).astype(np.float32)

    def importance(self) -> dict[str, float]:
        """Return the gain importance of each feature, as a share of the total gain."""
        gains = np.sum([booster.feature_importance("gain") for booster in self._boosters], axis=0)
        return dict(zip(self.names, (gains / max(gains.sum(), 1e-12)).tolist(), strict=True))

    def contributions(self, features: Matrix) -> Matrix:
        """Return (N, F + 1) TreeSHAP values, the base last; each row sums to the score (Lundberg 2020)."""
        parts = [booster.predict(features, pred_contrib=True) for booster in self._boosters]
        return np.asarray(np.mean(parts, axis=0), np.float32)

    @property
    def trees(self) -> int:
        """Return the number of trees in all boosters."""
        return sum(booster.num_trees() for booster in self._boosters)

    def save(self, folder: Path, name: str = "ranker") -> list[Path]:
        """Write one LightGBM text file per booster, NAME-0.txt and so on; return the paths."""
        paths = []
        for number, booster in enumerate(self._boosters):
            path = folder / f"{name}-{number}.txt"
            with atomic_write(path) as temporary:
                temporary.write_text(booster.model_to_string(num_iteration=-1))
            paths.append(path)
        if self.position_bias is not None and name == "ranker":
            paths.append(folder / POSITION_BIAS_FILE)
            self.position_bias.save(paths[-1])
        return paths

    @classmethod
    def load(cls, folder: Path, names: tuple[str, ...], fingerprint: str, name: str = "ranker") -> LambdaRanker:
        """Load the boosters of this name from a folder.

        Raises ValueError if one was trained on other features or is damaged, FileNotFoundError if there is none.
        """
        boosters = []
        for path in sorted(folder.glob(f"{name}-*.txt")):
            try:
                check_booster_text(path.read_bytes(), len(names))
                booster = lgb.Booster(model_file=str(path))
            except (ValueError, lgb.basic.LightGBMError) as problem:
                raise ValueError(f"{path.name} is no ranker that can be used: {problem}") from None
            if tuple(booster.feature_name()) != names:
                raise ValueError(f"{path.name} was trained on other features than the builder computes; train again")
            boosters.append(booster)
        if not boosters:
            raise FileNotFoundError(f"found no {name}-*.txt in {folder}; train a ranker with `feedrank train`")
        bias = folder / POSITION_BIAS_FILE
        try:
            return cls(boosters, names, fingerprint, PositionBias.load(bias) if bias.exists() else None)
        except (ValueError, KeyError, TypeError) as problem:
            raise ValueError(f"{POSITION_BIAS_FILE} can't be read: {type(problem).__name__}: {problem}") from None


class QueryAwareRanker:
    """Wraps a ranker that was trained without queries; it would rank a query's candidates by the user alone.

    A request with a query is ranked by the mean listwise z-score of the query features: BM25, cosine, token vectors and
    cross-encoder, as far as there are any. A user with a history adds the z-score of the recall score. Candidates that
    are level by these go by the ranker.
    """

    def __init__(self, ranker: Ranker, names: tuple[str, ...], query_weight: float = 0.7) -> None:
        """query_weight: weight of the query where there is a user history too, 0 to 1; the history has the rest."""
        self._ranker, self._query_weight = ranker, query_weight
        # the cross-encoder reads the titles of the history if there is no query
        self._signs = [names.index(name) for name in ("query_cosine", "bm25_query", "maxsim_query") if name in names]
        self._query_columns = self._signs + [names.index(name) for name in ("ce_score",) if name in names]
        self._user_column = [names.index(name) for name in ("recall_score",) if name in names]

    def contributions(self, features: Matrix) -> Matrix | None:
        """Return the ranker's TreeSHAP contributions; None for requests with a query and without a trained ranker."""
        if self._has_query(features) or not isinstance(self._ranker, LambdaRanker):
            return None
        return self._ranker.contributions(features)

    def score(self, features: Matrix) -> Scores:
        """Return the ranker's scores; for requests with a query, weighted means of z-scores, less that of the best + 1.

        Level ones differ by the smallest steps of a float32, in the ranker's order.
        """
        scores = self._ranker.score(features)
        if not self._has_query(features):
            return scores
        query = _z_scores(features[:, self._query_columns]).mean(axis=1)
        user = features[:, self._user_column]
        if user.size and not np.isnan(user).all():
            query = self._query_weight * query + (1 - self._query_weight) * _z_scores(user)[:, 0]
        return _break_ties(query, scores)

    def score_groups(self, features: Matrix, offsets: Offsets) -> Scores:
        """Score the rows of many requests without a query at once. Raises ValueError if one has a query."""
        if self._has_query(features):
            raise ValueError("found a request with a query in a batch; score it alone")
        if isinstance(self._ranker, LambdaRanker):
            return self._ranker.score(features)
        return np.concatenate(
            [np.empty(0, np.float32), *(self._ranker.score(features[i:j]) for i, j in pairwise(offsets))]
        )

    def _has_query(self, features: Matrix) -> bool:
        return bool(self._signs) and not np.isnan(features[:, self._signs]).all()


def _z_scores(columns: Matrix) -> Matrix:
    """Return the (N, C) z-scores of those columns that have values; a missing value counts as -1."""
    columns = np.ascontiguousarray(columns[:, ~np.isnan(columns).all(axis=0)])
    return np.nan_to_num(group_zscore(columns, np.array([0, len(columns)], np.int64)), nan=-1.0)


def _break_ties(values: Scores, tie_breaks: Scores) -> Scores:
    """Return (N,) the values less their largest + 1, where the n-th of level values is n steps of a float32 lower.

    tie_breaks: (N,) their order, the highest first.
    """
    below = (np.float32(1) + values.max(initial=-np.inf) - values).astype(np.float32)  # 1 or more, where steps are even
    order = np.lexsort((-tie_breaks, below))
    number = np.arange(len(order))
    steps = np.maximum.accumulate(below[order].view(np.int32) - number) + number
    scores = np.empty(len(order), np.float32)
    scores[order] = -steps.astype(np.int32).view(np.float32)
    return scores


class IdentityRanker:
    """A ranker that keeps the candidates in recall order."""

    def score(self, features: Matrix) -> Scores:
        """Return minus the position of each row, from 1."""
        return -np.arange(1, len(features) + 1, dtype=np.float32)
