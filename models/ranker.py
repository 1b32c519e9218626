"""LambdaRank by LightGBM (Burges, From RankNet to LambdaRank to LambdaMART: An Overview, 2010)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from engine.types import Matrix, Offsets, Scores
from models.files import written_aside


@dataclass(frozen=True, slots=True)
class LambdaRankSettings:
    """What LightGBM is asked for."""

    rounds: int = 160
    patience: int = 60
    """Rounds without a better validation metric before training stops."""
    refit: bool = True
    """Once validation has said how many rounds, train them anew on both slices: the validation slice is the latest."""
    seeds: int = 1
    """Boosters trained on different seeds and averaged."""
    seed: int = 7
    threads: int = 0
    """0: all cores. The result does not depend on it."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """LightGBM parameters that replace the defaults below."""


DEFAULTS: dict[str, Any] = {
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


@dataclass(frozen=True, eq=False, slots=True)
class Groups:
    """Feature rows with labels, group after group."""

    matrix: Matrix
    labels: NDArray[np.float32]
    offsets: Offsets

    def __post_init__(self) -> None:
        if not len(self.matrix) == len(self.labels) == self.offsets[-1]:
            raise ValueError(f"{len(self.matrix)} rows, {len(self.labels)} labels, {self.offsets[-1]} in groups")

    def __len__(self) -> int:
        return len(self.offsets) - 1


class LambdaRanker:
    """One booster, or the mean of several."""

    def __init__(self, boosters: Sequence[lgb.Booster], names: tuple[str, ...], fingerprint: str) -> None:
        if not boosters:
            raise ValueError("a ranker needs at least one booster")
        self.names = names
        self.fingerprint = fingerprint
        self._boosters = tuple(boosters)

    @classmethod
    def train(
        cls,
        train: Sequence[Groups],
        validation: Groups,
        names: tuple[str, ...],
        fingerprint: str,
        settings: LambdaRankSettings | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> LambdaRanker:
        """Train with early stopping on `validation`, which must be neither training nor test.

        Where the settings say refit, what comes back has learnt from `validation` too: measure it on the test slice.

        progress: called after each round with (round, validation nDCG@10).
        Raises ValueError where there is nothing to learn from: no groups, or no group with both kinds of labels.
        """
        settings = settings or LambdaRankSettings()
        for name, parts in (("training", train), ("validation", [validation])):
            if not any(np.any(part.labels > 0) for part in parts):
                raise ValueError(
                    f"the {name} slice has {sum(len(part) for part in parts)} groups and no clicked item among them; "
                    "LambdaRank needs rankings with at least one click, or interactions to make them from"
                )
        boosters = []
        for number in range(settings.seeds):
            parameters = DEFAULTS | {"seed": settings.seed + number, "num_threads": settings.threads}
            parameters |= dict(settings.parameters)
            try:
                boosters.append(_fit(parameters, train, validation, names, settings, progress))
            except lgb.basic.LightGBMError as problem:
                raise ValueError(f"LightGBM refused to train with {parameters}: {problem}") from None
        return cls(boosters, names, fingerprint)

    def score(self, features: Matrix) -> Scores:
        """(N,) scores of (N, F) feature rows."""
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise ValueError(
                f"found rows of {features.shape[-1]} features, expected {len(self.names)}; "
                "the usual cause is a ranker that was trained with another feature list: train again"
            )
        if not len(features):
            return np.empty(0, np.float32)
        total = np.zeros(len(features))
        for booster in self._boosters:
            total += booster.predict(features, num_threads=1 if len(features) < 2_000 else 0)
        return (total / len(self._boosters)).astype(np.float32)

    def importance(self) -> dict[str, float]:
        """Total gain of each feature, as a share of all."""
        gains = np.sum([booster.feature_importance("gain") for booster in self._boosters], axis=0)
        return dict(zip(self.names, (gains / max(gains.sum(), 1e-12)).tolist(), strict=True))

    def contributions(self, features: Matrix) -> Matrix:
        """(N, F + 1) TreeSHAP contributions of each feature, then the base; rows sum to the score (Lundberg 2020)."""
        parts = [booster.predict(features, pred_contrib=True) for booster in self._boosters]
        return np.asarray(np.mean(parts, axis=0), np.float32)

    @property
    def trees(self) -> int:
        """Trees over all boosters."""
        return sum(booster.num_trees() for booster in self._boosters)

    def save(self, folder: Path) -> list[Path]:
        """Write one LightGBM text file a booster."""
        written = []
        for number, booster in enumerate(self._boosters):
            path = folder / f"ranker-{number}.txt"
            with written_aside(path) as aside:
                aside.write_text(booster.model_to_string(num_iteration=-1))
            written.append(path)
        return written

    @classmethod
    def load(cls, folder: Path, names: tuple[str, ...], fingerprint: str) -> LambdaRanker:
        """Read the boosters in a folder; refuses one that knows other features."""
        boosters = []
        for path in sorted(folder.glob("ranker-*.txt")):
            booster = lgb.Booster(model_file=str(path))
            if tuple(booster.feature_name()) != names:
                raise ValueError(f"{path.name} was trained on other features than the builder makes; train again")
            boosters.append(booster)
        if not boosters:
            raise FileNotFoundError(f"no ranker-*.txt in {folder}; train one with `feedrank train`")
        return cls(boosters, names, fingerprint)


def _fit(
    parameters: dict[str, Any],
    train: Sequence[Groups],
    validation: Groups,
    names: tuple[str, ...],
    settings: LambdaRankSettings,
    progress: Callable[[int, float], None] | None,
) -> lgb.Booster:
    def told(env: lgb.callback.CallbackEnv) -> None:
        if progress and env.evaluation_result_list:
            progress(env.iteration + 1, float(env.evaluation_result_list[0][2]))

    data = _dataset(train, names)
    held_out = _dataset([validation], names, data)
    booster = lgb.train(
        parameters,
        data,
        settings.rounds,
        valid_sets=[held_out],
        callbacks=[lgb.early_stopping(settings.patience, first_metric_only=True, verbose=False), told],
    )
    if settings.refit:
        rounds = booster.best_iteration
        del booster, data, held_out
        return lgb.train(parameters, _dataset([*train, validation], names), rounds)
    # keep the best rounds alone, so that what is saved is what was measured
    return lgb.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def _dataset(parts: Sequence[Groups], names: tuple[str, ...], reference: lgb.Dataset | None = None) -> lgb.Dataset:
    """The parts one after the other; LightGBM reads them where they are, nothing is copied."""
    parts = [part for part in parts if len(part)]
    return lgb.Dataset(
        [part.matrix for part in parts],
        np.concatenate([part.labels for part in parts]),
        group=np.concatenate([np.diff(part.offsets) for part in parts]),
        feature_name=list(names),
        reference=reference,
    )
