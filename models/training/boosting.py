"""Trains the LightGBM boosters of a ranker, with early stopping, and with position debiasing if there are positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from feedrank.models.evaluation.gains import gains
from feedrank.models.training.label_gain import gain_of
from feedrank.models.training.position_bias import PositionBias, capture_position_biases
from feedrank.models.training.query_groups import QueryGroups, ranks
from feedrank.models.training.recall_comparison import RecallComparison
from feedrank.models.training.round_choice import ENOUGH_GROUPS, choose_rounds, positive_groups

if TYPE_CHECKING:
    from feedrank.models.training.ranker import LambdaRankSettings


def fit(
    parameters: dict[str, Any],
    train: Sequence[QueryGroups],
    validation: QueryGroups,
    names: tuple[str, ...],
    settings: LambdaRankSettings,
    progress: Callable[[int, float], None],
    init_booster: lgb.Booster | None,
    comparison: RecallComparison | None = None,
) -> tuple[lgb.Booster, PositionBias | None]:
    """Train one booster with early stopping; return it with its position bias, None if the positions are not used.

    With few validation groups nothing stops the training early, and `choose_rounds` says how many rounds are kept.

    progress: called after each round with (round, validation nDCG@10). init_booster: its trees are kept and extended.
    comparison: observes the validation scores of each round.
    """
    metric: list[float] = []

    def on_round(env: lgb.callback.CallbackEnv) -> None:
        if env.evaluation_result_list:
            metric.append(float(env.evaluation_result_list[0][2]))
            progress(env.iteration + 1 - trees_before, metric[-1])

    def compare(scores: NDArray[np.float64], _: lgb.Dataset) -> list[Any]:
        if comparison is not None:
            comparison.observe(np.asarray(scores))
        return []

    trees_before = init_booster.num_trees() if init_booster else 0
    rows = sum(len(part.labels) for part in train)
    if rows * parameters.get("bagging_fraction", 1.0) < 1:  # LightGBM fails on a sample of no row
        parameters = parameters | {"bagging_freq": 0}
    debias = settings.debias and all(
        part.positions is not None and (part.positions > 0).all() for part in (*train, validation) if len(part)
    )
    if debias:
        parameters = parameters | {"verbosity": 2}  # LightGBM logs its position biases at this level only
        return _fit_debiased(parameters, train, validation, names, settings, progress, init_booster, comparison)
    data = _dataset(train, names, False, init_booster=init_booster)
    held_out = _dataset([validation], names, False, data, init_booster)
    groups = positive_groups(validation)
    callbacks: list[Callable[[lgb.callback.CallbackEnv], None]] = [on_round]
    if groups >= ENOUGH_GROUPS:
        callbacks.insert(0, lgb.early_stopping(settings.patience, first_metric_only=True, verbose=False))
    booster = lgb.train(
        parameters, data, settings.rounds, valid_sets=[held_out], feval=compare, callbacks=callbacks,
        init_model=init_booster,
    )  # fmt: skip
    rounds = booster.best_iteration - trees_before if groups >= ENOUGH_GROUPS else choose_rounds(metric, groups)
    if settings.refit:
        del booster, data, held_out
        data = _dataset([*train, validation], names, False, init_booster=init_booster)
        return lgb.train(parameters, data, rounds, init_model=init_booster), None
    # keep the best rounds only, so that the saved model is the measured one
    return lgb.Booster(model_str=booster.model_to_string(num_iteration=trees_before + rounds)), None


def _fit_debiased(
    parameters: dict[str, Any],
    train: Sequence[QueryGroups],
    validation: QueryGroups,
    names: tuple[str, ...],
    settings: LambdaRankSettings,
    progress: Callable[[int, float], None],
    init_booster: lgb.Booster | None,
    comparison: RecallComparison | None,
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
        weights = curve.inverse_propensity_gains(gains(validation.labels, gain_of(parameters)), validation.positions)
        if comparison is not None:
            comparison.weight(weights)
        metric: list[float] = []
        for done in range(1, booster.num_trees() - first + 1):
            scores += np.asarray(booster.predict(matrix, start_iteration=first + done - 1, num_iteration=1))
            # over all groups at once: per-group normalisation would cancel the weight of a single click
            discounts = 1 / np.log2(2 + ranks(scores, validation.offsets))
            value = float((weights * discounts).sum() / weights.sum())
            progress(done, value)
            if comparison is not None:
                comparison.observe(scores)
            metric.append(value)
        rounds = choose_rounds(metric, positive_groups(validation))
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
        categorical_feature=list(parts[0].categories) if parts else [],
        position=position,
        reference=reference,
    )
