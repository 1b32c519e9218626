"""LambdaRank by LightGBM (Burges, From RankNet to LambdaRank to LambdaMART: An Overview, 2010)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from engine.types import Matrix, Scores
from models.bias import PositionBias, listening
from models.files import written_aside
from models.groups import Groups, ranks


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
    debias: bool = True
    """Tell LightGBM the places that items were shown at, where all training groups have them."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """LightGBM parameters that replace the defaults below."""


POSITION_BIAS = "position-bias.json"
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


class LambdaRanker:
    """One booster, or the mean of several."""

    def __init__(
        self,
        boosters: Sequence[lgb.Booster],
        names: tuple[str, ...],
        fingerprint: str,
        position_bias: PositionBias | None = None,
        learning_curve: Sequence[float] = (),
    ) -> None:
        """position_bias: what was learnt of it; the scores do not contain it.

        learning_curve: validation nDCG@10 after each round, of the first booster.
        """
        self.position_bias = position_bias
        self.learning_curve = tuple(learning_curve)
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
        start: LambdaRanker | None = None,
    ) -> LambdaRanker:
        """Train with early stopping on `validation`, which must be neither training nor test.

        Where the settings say refit, what comes back has learnt from `validation` too: measure it on the test slice.

        progress: called after each round with (round, validation nDCG@10). start: a ranker of the same features, whose
        trees are kept and added to. Positions are used where every training row has one, and only there: scores at
        serving are as of one place for all (lambdarank's position debiasing, LightGBM 4.1 and later).
        Raises ValueError where there is nothing to learn from: no groups, or no group with both kinds of labels.
        """
        settings = settings or LambdaRankSettings()
        if start is not None and (start.names != names or start.fingerprint != fingerprint):
            raise ValueError(
                "the ranker to start from was trained on other features or other feature settings; train without it"
            )
        for name, parts in (("training", train), ("validation", [validation])):
            if not any(np.any(part.labels > 0) for part in parts):
                raise ValueError(
                    f"the {name} slice has {sum(len(part) for part in parts)} groups and no clicked item among them; "
                    "LambdaRank needs rankings with at least one click, or interactions to make them from"
                )
        boosters: list[lgb.Booster] = []
        curves: list[PositionBias] = []
        learning: list[float] = []

        def told(done: int, value: float) -> None:
            if not boosters:
                learning.append(value)
            if progress:
                progress(done, value)

        for number in range(settings.seeds):
            parameters = DEFAULTS | {"seed": settings.seed + number, "num_threads": settings.threads}
            parameters |= dict(settings.parameters)
            try:
                booster, curve = _fit(parameters, train, validation, names, settings, told, start)
            except lgb.basic.LightGBMError as problem:
                raise ValueError(f"LightGBM refused to train with {parameters}: {problem}") from None
            boosters.append(booster)
            curves += [curve] if curve else []
        return cls(boosters, names, fingerprint, PositionBias.mean(curves), learning)

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

    def save(self, folder: Path, name: str = "ranker") -> list[Path]:
        """Write one LightGBM text file a booster, NAME-0.txt and so on."""
        written = []
        for number, booster in enumerate(self._boosters):
            path = folder / f"{name}-{number}.txt"
            with written_aside(path) as aside:
                aside.write_text(booster.model_to_string(num_iteration=-1))
            written.append(path)
        if self.position_bias is not None and name == "ranker":
            written.append(folder / POSITION_BIAS)
            self.position_bias.save(written[-1])
        return written

    @classmethod
    def load(cls, folder: Path, names: tuple[str, ...], fingerprint: str, name: str = "ranker") -> LambdaRanker:
        """Read the boosters of that name in a folder; refuses one that knows other features."""
        boosters = []
        for path in sorted(folder.glob(f"{name}-*.txt")):
            booster = lgb.Booster(model_file=str(path))
            if tuple(booster.feature_name()) != names:
                raise ValueError(f"{path.name} was trained on other features than the builder makes; train again")
            boosters.append(booster)
        if not boosters:
            raise FileNotFoundError(f"no {name}-*.txt in {folder}; train one with `feedrank train`")
        bias = folder / POSITION_BIAS
        return cls(boosters, names, fingerprint, PositionBias.load(bias) if bias.exists() else None)


def _fit(
    parameters: dict[str, Any],
    train: Sequence[Groups],
    validation: Groups,
    names: tuple[str, ...],
    settings: LambdaRankSettings,
    progress: Callable[[int, float], None],
    start: LambdaRanker | None,
) -> tuple[lgb.Booster, PositionBias | None]:
    def told(env: lgb.callback.CallbackEnv) -> None:
        if env.evaluation_result_list:
            progress(env.iteration + 1 - first, float(env.evaluation_result_list[0][2]))

    before = start._boosters[0] if start else None
    first = before.num_trees() if before else 0
    debias = settings.debias and all(
        part.positions is not None and (part.positions > 0).all() for part in (*train, validation) if len(part)
    )
    if debias:
        parameters = parameters | {"verbosity": 2}  # only so does LightGBM say what it learnt of positions
        return _fit_debiased(parameters, train, validation, names, settings, progress, before)
    data = _dataset(train, names, False, before=before)
    held_out = _dataset([validation], names, False, data, before)
    stop = lgb.early_stopping(settings.patience, first_metric_only=True, verbose=False)
    booster = lgb.train(
        parameters, data, settings.rounds, valid_sets=[held_out], callbacks=[stop, told], init_model=before
    )
    if settings.refit:
        rounds = booster.best_iteration - first
        del booster, data, held_out
        data = _dataset([*train, validation], names, False, before=before)
        return lgb.train(parameters, data, rounds, init_model=before), None
    # keep the best rounds alone, so that what is saved is what was measured
    return lgb.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration)), None


def _fit_debiased(
    parameters: dict[str, Any],
    train: Sequence[Groups],
    validation: Groups,
    names: tuple[str, ...],
    settings: LambdaRankSettings,
    progress: Callable[[int, float], None],
    before: lgb.Booster | None,
) -> tuple[lgb.Booster, PositionBias | None]:
    """All rounds, then as many as order the validation slice best once its clicks are weighed by the learnt curve.

    Clicks as they stand would stop it early: what is learnt against the bias of the clicks fits biased clicks worse.
    """
    with listening() as listener:
        data = _dataset(train, names, True, before=before)
        booster = lgb.train(parameters, data, settings.rounds, init_model=before)
        curve = listener.curve
        assert curve is not None, "LightGBM said nothing of position biases"
        first = before.num_trees() if before else 0
        matrix = validation.features()
        scores = np.array(before.predict(matrix)) if before else np.zeros(len(matrix))
        assert validation.positions is not None
        weights = curve.weights(validation.labels, validation.positions)
        best, rounds = -1.0, 1
        for done in range(1, booster.num_trees() - first + 1):
            scores += np.asarray(booster.predict(matrix, start_iteration=first + done - 1, num_iteration=1))
            # over all groups at once: a list's own ideal would divide the weight of its one click away
            discounts = 1 / np.log2(2 + ranks(scores, validation.offsets))
            value = float((weights * discounts).sum() / weights.sum())
            progress(done, value)
            if value > best:
                best, rounds = value, done
        if settings.refit:
            del booster
            data = _dataset([*train, validation], names, True, before=before)
            return lgb.train(parameters, data, rounds, init_model=before), listener.curve
        return lgb.Booster(model_str=booster.model_to_string(num_iteration=first + rounds)), curve


def _dataset(
    parts: Sequence[Groups], names: tuple[str, ...], positions: bool, reference: lgb.Dataset | None = None,
    before: lgb.Booster | None = None,
) -> lgb.Dataset:  # fmt: skip
    """The parts one after the other; LightGBM reads them where they are, and copies only to score them `before`."""
    parts = [part for part in parts if len(part)]
    places = np.concatenate([part.positions for part in parts if part.positions is not None]) if positions else None
    matrices: Any = [part.matrix for part in parts]
    if before is not None or not all(isinstance(matrix, type(matrices[0])) for matrix in matrices):
        matrices = [part.features() for part in parts]
    return lgb.Dataset(
        matrices if before is None else np.concatenate(matrices),
        np.concatenate([part.labels for part in parts]),
        group=np.concatenate([np.diff(part.offsets) for part in parts]),
        feature_name=list(names),
        position=places,
        reference=reference,
    )
