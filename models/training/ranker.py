"""Train and apply a LambdaRank model with LightGBM (Burges, From RankNet to LambdaRank to LambdaMART, 2010)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from feedrank.engine.types import Matrix, Scores
from feedrank.models.atomic_files import atomic_write
from feedrank.models.training.position_bias import PositionBias, capture_position_biases
from feedrank.models.training.query_groups import QueryGroups, ranks


@dataclass(frozen=True, slots=True)
class LambdaRankSettings:
    """[ranker] Settings of the LightGBM training."""

    rounds: int = 160
    """Maximum number of boosting rounds, with one tree each. Unit: rounds."""
    patience: int = 60
    """Training stops early after this many rounds without a better validation metric. Unit: rounds."""
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
    """LightGBM parameters by name, such as {num_leaves = 31}; they override the defaults of feedrank."""


POSITION_BIAS_FILE = "position-bias.json"
DEFAULT_PARAMETERS: dict[str, Any] = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "learning_rate": 0.1,
    "num_leaves": 8,
    "min_data_in_leaf": 80,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "lambdarank_truncation_level": 30,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class LambdaRanker:
    """A ranking model of one LightGBM booster, or the mean of several."""

    def __init__(
        self,
        boosters: Sequence[lgb.Booster],
        names: tuple[str, ...],
        fingerprint: str,
        position_bias: PositionBias | None = None,
        learning_curve: Sequence[float] = (),
    ) -> None:
        """Take trained boosters.

        position_bias: the learnt curve; the scores do not contain it. learning_curve: validation nDCG@10 after each
        round of the first booster. Raises ValueError without a booster.
        """
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
    ) -> LambdaRanker:
        """Train with early stopping on `validation`, which must be neither training nor test data.

        With `settings.refit` the result has learnt from `validation` too, so measure it on the test slice.

        progress: called after each round with (round, validation nDCG@10). init_model: a ranker of the same features,
        whose trees are kept and extended. Positions are used only if every row has one; scores at serving assume the
        same position for all items (LightGBM's position debiasing, 4.1 and later).

        Raises ValueError if a slice has no positive label, if `init_model` has other features, or if LightGBM fails.
        """
        settings = settings or LambdaRankSettings()
        if init_model is not None and (init_model.names != names or init_model.fingerprint != fingerprint):
            raise ValueError(
                "the initial ranker was trained on other features or other feature settings; train without it"
            )
        for name, parts in (("training", train), ("validation", [validation])):
            if not any(np.any(part.labels > 0) for part in parts):
                raise ValueError(
                    f"the {name} slice has {sum(len(part) for part in parts)} groups with no clicked item among them; "
                    "LambdaRank needs rankings with at least one click, or interactions to build groups from"
                )
        boosters: list[lgb.Booster] = []
        curves: list[PositionBias] = []
        learning: list[float] = []

        def on_round(done: int, value: float) -> None:
            if not boosters:
                learning.append(value)
            if progress:
                progress(done, value)

        for seed_offset in range(settings.ensemble_size):
            parameters = DEFAULT_PARAMETERS | {"seed": settings.seed + seed_offset, "num_threads": settings.threads}
            parameters |= dict(settings.parameters)
            try:
                booster, curve = _fit(parameters, train, validation, names, settings, on_round, init_model)
            except lgb.basic.LightGBMError as problem:
                raise ValueError(f"LightGBM refused to train with {parameters}: {problem}") from None
            boosters.append(booster)
            curves += [curve] if curve else []
        return cls(boosters, names, fingerprint, PositionBias.mean(curves), learning)

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

        Raises ValueError if one was trained on other features, FileNotFoundError if there is none.
        """
        boosters = []
        for path in sorted(folder.glob(f"{name}-*.txt")):
            booster = lgb.Booster(model_file=str(path))
            if tuple(booster.feature_name()) != names:
                raise ValueError(f"{path.name} was trained on other features than the builder computes; train again")
            boosters.append(booster)
        if not boosters:
            raise FileNotFoundError(f"found no {name}-*.txt in {folder}; train a ranker with `feedrank train`")
        bias = folder / POSITION_BIAS_FILE
        return cls(boosters, names, fingerprint, PositionBias.load(bias) if bias.exists() else None)


def _fit(
    parameters: dict[str, Any],
    train: Sequence[QueryGroups],
    validation: QueryGroups,
    names: tuple[str, ...],
    settings: LambdaRankSettings,
    progress: Callable[[int, float], None],
    init_model: LambdaRanker | None,
) -> tuple[lgb.Booster, PositionBias | None]:
    def on_round(env: lgb.callback.CallbackEnv) -> None:
        if env.evaluation_result_list:
            progress(env.iteration + 1 - trees_before, float(env.evaluation_result_list[0][2]))

    init_booster = init_model._boosters[0] if init_model else None
    trees_before = init_booster.num_trees() if init_booster else 0
    debias = settings.debias and all(
        part.positions is not None and (part.positions > 0).all() for part in (*train, validation) if len(part)
    )
    if debias:
        parameters = parameters | {"verbosity": 2}  # LightGBM logs its position biases at this level only
        return _fit_debiased(parameters, train, validation, names, settings, progress, init_booster)
    data = _dataset(train, names, False, init_booster=init_booster)
    held_out = _dataset([validation], names, False, data, init_booster)
    stop = lgb.early_stopping(settings.patience, first_metric_only=True, verbose=False)
    booster = lgb.train(
        parameters, data, settings.rounds, valid_sets=[held_out], callbacks=[stop, on_round], init_model=init_booster
    )
    if settings.refit:
        rounds = booster.best_iteration - trees_before
        del booster, data, held_out
        data = _dataset([*train, validation], names, False, init_booster=init_booster)
        return lgb.train(parameters, data, rounds, init_model=init_booster), None
    # keep the best rounds only, so that the saved model is the measured one
    return lgb.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration)), None


def _fit_debiased(
    parameters: dict[str, Any],
    train: Sequence[QueryGroups],
    validation: QueryGroups,
    names: tuple[str, ...],
    settings: LambdaRankSettings,
    progress: Callable[[int, float], None],
    init_booster: lgb.Booster | None,
) -> tuple[lgb.Booster, PositionBias | None]:
    """Train all rounds, then keep the number of rounds with the best inverse-propensity-weighted validation metric.

    Unweighted clicks would stop training too early: a debiased model fits biased clicks worse.
    """
    with capture_position_biases() as listener:
        data = _dataset(train, names, True, init_booster=init_booster)
        booster = lgb.train(parameters, data, settings.rounds, init_model=init_booster)
        curve = listener.curve
        assert curve is not None, "LightGBM logged no position biases"
        first = init_booster.num_trees() if init_booster else 0
        matrix = validation.features()
        scores = np.array(init_booster.predict(matrix)) if init_booster else np.zeros(len(matrix))
        assert validation.positions is not None
        weights = curve.inverse_propensity_gains(validation.labels, validation.positions)
        best, rounds = -1.0, 1
        for done in range(1, booster.num_trees() - first + 1):
            scores += np.asarray(booster.predict(matrix, start_iteration=first + done - 1, num_iteration=1))
            # over all groups at once: per-group normalisation would cancel the weight of a single click
            discounts = 1 / np.log2(2 + ranks(scores, validation.offsets))
            value = float((weights * discounts).sum() / weights.sum())
            progress(done, value)
            if value > best:
                best, rounds = value, done
        if settings.refit:
            del booster
            data = _dataset([*train, validation], names, True, init_booster=init_booster)
            return lgb.train(parameters, data, rounds, init_model=init_booster), listener.curve
        return lgb.Booster(model_str=booster.model_to_string(num_iteration=first + rounds)), curve


def _dataset(
    parts: Sequence[QueryGroups], names: tuple[str, ...], positions: bool, reference: lgb.Dataset | None = None,
    init_booster: lgb.Booster | None = None,
) -> lgb.Dataset:  # fmt: skip
    """Concatenate the parts into a LightGBM dataset; matrices are copied only if `init_booster` must score them."""
    parts = [part for part in parts if len(part)]
    position = np.concatenate([part.positions for part in parts if part.positions is not None]) if positions else None
    matrices: Any = [part.matrix for part in parts]
    if init_booster is not None or not all(isinstance(matrix, type(matrices[0])) for matrix in matrices):
        matrices = [part.features() for part in parts]
    return lgb.Dataset(
        matrices if init_booster is None else np.concatenate(matrices),
        np.concatenate([part.labels for part in parts]),
        group=np.concatenate([np.diff(part.offsets) for part in parts]),
        feature_name=list(names),
        position=position,
        reference=reference,
    )
