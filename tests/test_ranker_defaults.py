"""The ranker's defaults fit the size of the data: small data is learnt, and large data keeps its parameters."""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.models.training.query_groups import QueryGroups
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings
from feedrank.models.training.ranker_defaults import DEFAULT_PARAMETERS, default_parameters
from feedrank.models.training.round_choice import ENOUGH_GROUPS, WINDOW, choose_rounds

NAMES = tuple(f"f{number}" for number in range(6))


def graded(seed: int, n_groups: int) -> QueryGroups:
    """Return groups whose grade is known from three of six features, with noise."""
    dice = np.random.default_rng(seed)
    sizes = dice.integers(5, 20, n_groups)
    matrix = dice.normal(size=(sizes.sum(), len(NAMES))).astype(np.float32)
    value = matrix[:, 0] - np.abs(matrix[:, 1]) + matrix[:, 2] * matrix[:, 3] + dice.normal(0, 0.5, len(matrix))
    return QueryGroups(matrix, np.digitize(value, [-1.0, 0.5, 1.5]).astype(np.float32), np.append(0, np.cumsum(sizes)))


def ndcg(groups: QueryGroups, scores: Any) -> float:
    values = []
    for start, stop in zip(groups.offsets[:-1], groups.offsets[1:], strict=True):
        gains = 2 ** groups.labels[start:stop] - 1
        discounts = 1 / np.log2(np.arange(2, 12))[: stop - start]
        shown = gains[np.argsort(-scores[start:stop], kind="stable")][:10]
        values.append((shown * discounts[:10]).sum() / max((np.sort(gains)[::-1][:10] * discounts).sum(), 1e-9))
    return float(np.mean(values))


@pytest.mark.parametrize(("n_train", "n_validation"), [(30, 6), (100, 20)])
def test_small_data_is_learnt_as_well_as_by_lightgbm(n_train: int, n_validation: int) -> None:
    ours, lightgbm = [], []
    for seed in range(3):
        train, validation, test = graded(seed, n_train), graded(seed + 50, n_validation), graded(seed + 99, 150)
        ranker = LambdaRanker.train([train], validation, NAMES, "f", LambdaRankSettings(threads=1))
        ours.append(ndcg(test, ranker.score(test.features())))
        assert ranker.trees > 80
        both = [np.concatenate([getattr(part, name) for part in (train, validation)]) for name in ("matrix", "labels")]
        sizes = np.concatenate([np.diff(part.offsets) for part in (train, validation)])
        plain = {"objective": "lambdarank", "verbosity": -1, "num_threads": 1}
        booster = lgb.train(plain, lgb.Dataset(both[0], both[1], group=sizes), 100)
        lightgbm.append(ndcg(test, np.asarray(booster.predict(test.features()))))
    assert np.mean(ours) >= 0.98 * np.mean(lightgbm)
    assert np.mean(ours) >= 0.75


@given(rows=st.integers(1, 10**7), features=st.integers(1, 2_000))
def test_parameters_grow_with_the_data_up_to_those_of_large_data(rows: int, features: int) -> None:
    found = default_parameters(rows, features)
    assert 5 <= found["min_data_in_leaf"] <= 80
    assert 1 <= found["lambda_l2"] <= 10
    assert 0.4 <= found["feature_fraction"] <= 1
    if rows >= 20_000 and features >= 40:
        assert found == DEFAULT_PARAMETERS
    more = default_parameters(rows + 1_000, features + 1)
    assert more["min_data_in_leaf"] >= found["min_data_in_leaf"]
    assert more["feature_fraction"] <= found["feature_fraction"]
    assert found.keys() == DEFAULT_PARAMETERS.keys()


@given(curve=st.lists(st.floats(0, 1), min_size=1, max_size=60), groups=st.integers(0, 2 * ENOUGH_GROUPS))
def test_the_number_of_rounds_lies_between_the_best_one_and_all(curve: list[float], groups: int) -> None:
    rounds = choose_rounds(curve, groups)
    if groups >= ENOUGH_GROUPS:
        assert rounds == int(np.argmax(curve)) + 1
        return
    smoothed = [np.mean(curve[max(0, at - WINDOW // 2) : at + WINDOW // 2 + 1]) for at in range(len(curve))]
    best = int(np.argmax(smoothed)) + 1
    assert best <= rounds <= len(curve) or np.sort(smoothed)[-1] == pytest.approx(np.sort(smoothed)[-2])
    assert groups or rounds == len(curve)


def test_a_peak_of_the_first_tree_is_taken_for_noise() -> None:
    curve = [0.9, *np.linspace(0.5, 0.7, 99)]
    assert choose_rounds(curve, 10) >= 90
    assert choose_rounds(curve, ENOUGH_GROUPS) == 1


def test_parameters_of_the_settings_win() -> None:
    settings = LambdaRankSettings(rounds=5, threads=1, parameters={"min_data_in_leaf": 80, "lambda_l2": 10.0})
    train, validation = graded(1, 30), graded(2, 6)
    ranker = LambdaRanker.train([train], validation, NAMES, "f", settings)
    text = ranker._boosters[0].model_to_string()
    assert "[min_data_in_leaf: 80]" in text
    assert "[lambda_l2: 10]" in text
